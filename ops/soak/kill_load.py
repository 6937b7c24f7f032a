"""Mixed load with known outcomes: every way to start a run, and to wait in the middle of one.

Each workflow answers with a text that names the run, so that a lost, swapped or repeated result
shows. Its model and its web server live here, in the driver's process: they outlive the server.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import trio

from ops.soak.clients import Caller, Notes, Watcher
from ops.soak.door import ConnectionLost
from ops.soak.history import Answered, ModelCall, OutsideCall
from ops.soak.workflows import TEXT_OF_RUN, Draft, DraftEdge, DraftNode
from pipelit.llm.loopback import Exchange, serve_http

TALKS = 8
MODEL = "demo-1"
PRICE = (2.0, 6.0)
"""Micro-dollars for a token in and a token out."""
RETRY_SECONDS = 60.0
_INPUT_TOKENS, _OUTPUT_TOKENS = 5, 2


class Outside:
    """What runs talk to: a model and a web server, and what reached them."""

    def __init__(self, draw: Random) -> None:
        self._draw = draw
        self.model_calls: list[ModelCall] = []
        self.outside_calls: list[OutsideCall] = []
        self.model_url = ""
        self.web_url = ""

    async def answer_model(self, exchange: Exchange) -> None:
        """Use the calculator once, then answer with the last words said."""
        body = msgspec.json.decode(exchange.request.body)
        messages = body["messages"]
        asked = [m["content"] for m in messages if m["role"] == "user"][-1]
        has_tool = bool(body.get("tools")) and messages[-1]["role"] != "tool"
        run = messages[0]["content"].split()[-1]
        tokens = {"input_tokens": _INPUT_TOKENS, "output_tokens": _OUTPUT_TOKENS}
        self.model_calls.append(ModelCall(execution_id=run, **tokens))
        await exchange.start(200, content_type="text/event-stream")
        await trio.sleep(self._draw.uniform(0, 0.15))
        if has_tool:
            function = {"name": "calculator", "arguments": '{"expression": "6*7"}'}
            call = {"index": 0, "id": "c1", "type": "function", "function": function}
            events = [_delta({"tool_calls": [call]}), _delta({}, "tool_calls")]
        else:
            events = [_delta({"content": f"well {asked}"}), _delta({}, "stop")]
        usage = {"prompt_tokens": _INPUT_TOKENS, "completion_tokens": _OUTPUT_TOKENS}
        for event in [*events, {"choices": [], "usage": usage}]:
            await exchange.send(b"data: " + msgspec.json.encode(event) + b"\n\n")
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    async def answer_web(self, exchange: Exchange) -> None:
        """Answer with the path that was asked for."""
        key = exchange.request.headers.get("idempotency-key", "")
        self.outside_calls.append(OutsideCall(key=key))
        await trio.sleep(self._draw.uniform(0, 0.2))
        body = {"text": exchange.request.path.strip("/")}
        await exchange.respond(200, msgspec.json.encode(body))


def _delta(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


@asynccontextmanager
async def open_outside(draw: Random) -> AsyncIterator[Outside]:
    """Run the model and the web server for the length of the block."""
    outside = Outside(draw)
    async with trio.open_nursery() as nursery:
        outside.model_url = await nursery.start(serve_http, outside.answer_model) + "/v1"
        outside.web_url = await nursery.start(serve_http, outside.answer_web)
        yield outside
        nursery.cancel_scope.cancel()


def draft_all(outside: Outside, credential_id: int) -> dict[str, Draft]:
    """Return the workflows by slug."""
    drafts = [*_draft_agents(credential_id), *_draft_requests(outside.web_url), *_draft_waits()]
    return {draft.slug: draft for draft in drafts}


def _draft_agents(credential_id: int) -> list[Draft]:
    """Draw agents with a tool, in chats and by hand."""
    model = _node("model", "ai_model", llm_credential_id=credential_id, model_name=MODEL)
    agent = _node("think", "agent", system_prompt=TEXT_OF_RUN)
    parts = model, agent, _node("calc", "calculator"), _say("{{ think.output }}")
    paths = "start > think > say, model > think : llm, calc > think : tool"
    talk = paths.replace("start", "chat_in")
    return [
        _draft("agent", paths, _node("start", "trigger_manual"), *parts),
        *(
            _draft(f"talk-{number}", talk, _node("chat_in", "trigger_chat"), *parts)
            for number in range(TALKS)
        ),
    ]


def _draft_requests(web_url: str) -> list[Draft]:
    """Draw a request, and a loop of requests."""
    start = _node("start", "trigger_manual")
    post = {"method": "POST", "url": f"{web_url}/{{{{ trigger.text }}}}", "body": "x"}
    each = {"method": "POST", "url": f"{web_url}/{{{{ loop.item }}}}", "body": "x"}
    numbers = "{{ each.results | map(attribute='post') | map(attribute='json') "
    numbers += "| map(attribute='text') | join(' ') }} {{ trigger.text }}"
    return [
        _draft(
            "fetch",
            "start > get > say",
            start,
            _extra("get", "http_request", **post),
            _say("{{ get.json.text }}"),
        ),
        _draft(
            "batch",
            "start > each > say, each > post : loop_body, post > each : loop_return",
            start,
            _extra("each", "loop", source_node="start", field="payload.numbers"),
            _extra("post", "http_request", **each),
            _say(numbers),
        ),
    ]


def _draft_waits() -> list[Draft]:
    """Draw waits for a time, for a person and for a child; and what a schedule runs."""
    start, text = _node("start", "trigger_manual"), _say("{{ trigger.text }}")
    call = {"target_workflow": "child", "input_mapping": {"job": "{{ trigger.text }}"}}
    return [
        _draft("nap", "start > sleep > say", start, _sleep(1.5), text),
        _draft(
            "ask",
            "start > sure > say",
            start,
            _extra("sure", "human_confirmation", prompt="Sure?"),
            _say("{{ sure.confirmed }} {{ trigger.text }}"),
        ),
        _draft(
            "child",
            "start > sleep > say",
            _node("start", "trigger_workflow"),
            _sleep(0.5),
            _say("{{ trigger.payload.job }}"),
        ),
        _draft(
            "parent",
            "start > call > say",
            start,
            _extra("call", "workflow", **call),
            _say("{{ call.text }}"),
        ),
        _draft(
            "ticks",
            "clock > say",
            _node("clock", "trigger_schedule"),
            _say("{{ trigger.nominal_time }}"),
        ),
    ]


OUTPUTS = {
    "agent": "well {}",
    "fetch": "{}",
    "nap": "{}",
    "ask": "True {}",
    "batch": "1 2 3 {}",
    "parent": "{}",
    **{f"talk-{number}": "well {}" for number in range(TALKS)},
}
"""What each workflow that clients start answers to a text."""


def _node(node_id: str, component_type: str, **config: object) -> DraftNode:
    return DraftNode(node_id=node_id, component_type=component_type, config=config)


def _extra(node_id: str, component_type: str, **extra: object) -> DraftNode:
    return _node(node_id, component_type, extra_config=extra)


def _say(message: str) -> DraftNode:
    return _extra("say", "reply_chat", message=message)


def _sleep(seconds: float) -> DraftNode:
    return _extra("sleep", "wait", duration=seconds, unit="seconds")


def _draft(slug: str, paths: str, *nodes: DraftNode) -> Draft:
    """Draw a workflow. Paths: `a > b > c`, `a > b : label`, by commas."""
    edges = []
    for path in paths.split(", "):
        chain, _, label = path.partition(" : ")
        steps = chain.split(" > ")
        edges += [
            DraftEdge(source_node_id=a, target_node_id=b, edge_label=label)
            for a, b in pairwise(steps)
        ]
    return Draft(slug=slug, nodes=nodes, edges=tuple(edges))


class PatientCaller(Caller):
    """A caller whose server comes back within seconds, again and again."""

    async def surely(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Send a request until it is answered by a server that takes work.

        Raises:
            ConnectionLost: none did in a minute.
        """
        last = "none"
        with trio.move_on_after(RETRY_SECONDS):
            while True:
                try:
                    answer = await self.once(method, path, body, **headers)
                except ConnectionLost as lost:
                    last = repr(lost.__context__)
                else:
                    if answer.status not in {429, 500, 503}:
                        return answer
                    last = f"{answer.status} {answer.body[:200]!r}"
                await trio.sleep(0.2)
        raise ConnectionLost(f"{method} {path}: {last}")


class Load:
    """Clients that start runs at a rate, some of which they follow, answer or cancel."""

    def __init__(self, caller: Caller, notes: Notes, draw: Random) -> None:
        self._caller = caller
        self._notes = notes
        self._draw = draw
        self._count = 0
        self.wanted: dict[str, tuple[str, str]] = {}
        """{mark: (workflow, the answer that is expected)}."""

    async def keep_starting(self, rate: float, followers: trio.Nursery) -> None:
        """Start runs until cancelled; one that is being started is finished."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self._draw.expovariate(rate))
                nursery.start_soon(self._start, followers)

    async def _start(self, followers: trio.Nursery) -> None:
        self._count += 1
        slug = self._draw.choice(("talk", "agent", "fetch", "nap", "ask", "batch", "parent"))
        if slug == "talk":  # a session takes one at a time, so there are several
            slug = f"talk-{self._draw.randrange(TALKS)}"
        mark = f"m{self._count}"
        self.wanted[mark] = slug, OUTPUTS[slug].format(mark)
        self._notes.starts[mark] = []
        follow, cancel = self._draw.random() < 0.1, self._draw.random() < 0.1
        path = "chat" if slug.startswith("talk") else "execute"
        body: dict[str, object] = {"text": mark}
        if slug == "batch":
            body["payload"] = {"text": mark, "numbers": [1, 2, 3]}
        with trio.CancelScope(shield=True):  # what was accepted has to be noted
            try:
                answer = await self._caller.surely(
                    "POST", f"/workflows/{slug}/{path}/", body, idempotency_key=mark
                )
            except ConnectionLost:
                return  # a client gives up, too; nothing was acknowledged
        if not answer.is_good:
            self._notes.faults.append(f"{mark} was refused with {answer.status}")
            return
        execution_id = answer.json["execution_id"]
        self._notes.starts[mark].append(execution_id)
        self._notes.executions.append(execution_id)
        if follow:
            watcher = Watcher(execution_id, self._draw, self._caller, self._notes)
            followers.start_soon(watcher.follow)
        if cancel:
            followers.start_soon(self._cancel, execution_id)

    async def _cancel(self, execution_id: str) -> None:
        await trio.sleep(self._draw.uniform(0, 0.5))
        try:
            answer = await self._caller.surely("POST", f"/executions/{execution_id}/cancel/")
        except ConnectionLost:
            return
        if answer.is_good:
            self._notes.see(answer.json, "cancel")
            if answer.json["status"] == "cancelled":
                self._notes.cancelled.append(execution_id)

    async def keep_looking(self) -> None:
        """Look at the newest executions now and then, until cancelled."""
        while True:
            await trio.sleep(1.0)
            with suppress(ConnectionLost):
                answer = await self._caller.surely("GET", "/executions/?limit=50")
                for execution in answer.json["items"]:
                    self._notes.see(execution, "list")

    async def keep_answering(self) -> None:
        """Say yes to every question, until cancelled."""
        while True:
            await trio.sleep(0.3)
            with suppress(ConnectionLost):  # the next round sees what counted
                page = await self._caller.surely("GET", "/executions/?status=interrupted&limit=50")
                for execution in page.json["items"]:
                    await self._answer(execution["execution_id"])

    async def _answer(self, execution_id: str) -> None:
        detail = await self._caller.surely("GET", f"/executions/{execution_id}/")
        for question in detail.json["pending_confirmations"]:
            said = {"input": "yes", "task_id": question["task_id"]}
            told = await self._caller.once("POST", f"/executions/{execution_id}/resume/", said)
            if told.is_good:
                self._notes.answered.append(
                    Answered(execution_id=execution_id, task_id=question["task_id"])
                )

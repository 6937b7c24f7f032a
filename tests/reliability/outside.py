"""What the runs of the reliability tests talk to: a model and a web server that can hold answers.

Both are real servers in the test's process, so they outlive a kill of the product. Every question
is known by (run, node, step); those in `held` wait for `release`.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio

from pipelit.llm.loopback import Exchange, serve_http
from tests.kit.model_server import ModelCall

Question: TypeAlias = tuple[str, str, int]
"""Which run asks, on behalf of which node, for the how manieth time in one attempt."""

PATIENCE = 30.0


class Outside:
    """The world around the server, in the test's hands."""

    def __init__(self, held: Iterable[Question] = ()) -> None:
        self.held = frozenset(held)
        self.asked: Counter[Question] = Counter()
        self.keys: dict[Question, set[str]] = {}
        """Idempotency keys that came with each question."""
        self.model_url = ""
        self.web_url = ""
        self._released: set[Question] = set()
        self._changed = trio.Event()

    @property
    def web_address(self) -> str:
        """The web server as host and port."""
        return self.web_url.removeprefix("http://")

    def release(self, *questions: Question) -> None:
        """Answer these, or everything, now and from now on."""
        self._released.update(questions or self.held)
        self._notify()

    async def wait_held(self, times: int) -> None:
        """Wait until everything to be held was asked so many times."""
        await self.wait_asked(*self.held, times=times)

    async def wait_asked(self, *questions: Question, times: int = 1) -> None:
        """Wait until these questions were asked so many times."""
        missing = set(questions)
        with trio.move_on_after(PATIENCE):
            while missing := {one for one in missing if self.asked[one] < times}:
                await self._changed.wait()
        assert not missing, missing

    async def wait_change(self) -> None:
        """Wait until something is asked or released."""
        await self._changed.wait()

    async def answer_model(self, exchange: Exchange) -> None:
        """Be the model: `first` uses a tool before it answers, everybody else answers at once."""
        call = ModelCall(exchange)
        messages = call.body["messages"]
        node = messages[0]["content"]
        run = [m["content"] for m in messages if m["role"] == "user"][-1]
        step = 1 + sum(message["role"] == "tool" for message in messages)
        await call.begin()
        await call.send_events([_delta({"content": f"{node} "})])
        await self._note((run, node, step))
        if node == "first" and step == 1:
            function = {"name": "calculator", "arguments": json.dumps({"expression": "6*7"})}
            tool_call = {"index": 0, "id": f"call_{run}", "type": "function", "function": function}
            end = [_delta({"tool_calls": [tool_call]}), _delta({}, "tool_calls")]
        else:
            last = messages[-1]["content"] if step > 1 else "well"
            end = [_delta({"content": f"{last} {run}"}), _delta({}, "stop")]
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        await call.send_events([*end, {"choices": [], "usage": usage}])
        await call.send(b"data: [DONE]\n\n")
        await call.end()

    async def answer_web(self, exchange: Exchange) -> None:
        """Be the web: `/<run>/<node>` answers with a route and who asked."""
        _, run, node = exchange.request.path.split("/")
        question = (run, node, 1)
        key = exchange.request.headers.get("idempotency-key", "")
        self.keys.setdefault(question, set()).add(key)
        await self._note(question)
        body = {"route": "left" if int(run[1:]) % 2 else "right", "text": f"{node} of {run}"}
        await exchange.respond(200, json.dumps(body).encode())

    async def _note(self, question: Question) -> None:
        self.asked[question] += 1
        self._notify()
        while question in self.held - self._released:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def outside(held: Iterable[Question] = ()) -> AsyncIterator[Outside]:
    """Run the world for as long as the block lasts."""
    world = Outside(held)
    async with trio.open_nursery() as nursery:
        world.model_url = await nursery.start(serve_http, world.answer_model) + "/v1"
        world.web_url = await nursery.start(serve_http, world.answer_web)
        yield world
        nursery.cancel_scope.cancel()


def _delta(delta: dict[str, object], reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

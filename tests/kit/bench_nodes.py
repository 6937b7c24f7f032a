"""A place to try single nodes of a running server: as steps of a run, or as tools of an agent."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.kit.api import Api
from tests.kit.model_server import ModelCall, ModelServer

ENDS = ("success", "failed")


@dataclass
class Run:
    """An execution that has ended."""

    detail: Any

    def ports(self, node_id: str) -> Any:
        """Return what a node gave."""
        return self._last(node_id, "success")["output"]

    def failure(self, node_id: str) -> tuple[str, str]:
        """Return why a node failed, and the code."""
        row = self._last(node_id, "failed")
        return row["error"], row["error_code"]

    def _last(self, node_id: str, status: str) -> Any:
        rows = [row for row in self.detail["logs"] if row["node_id"] == node_id]
        assert [row["status"] for row in rows][-1:] == [status], (rows, self.detail)
        return rows[-1]


@dataclass
class Talk:
    """An agent whose model is the test: it calls tools and reads what they say."""

    provider: ModelServer
    call: ModelCall
    expected: list[tuple[str, str]] = field(default_factory=list)

    async def ask(self, name: str, /, **arguments: Any) -> str:
        """Call a function that must succeed; return its text."""
        return await self._use(name, arguments, "success")

    async def fail(self, name: str, /, **arguments: Any) -> str:
        """Call a function that must fail; return its text."""
        return await self._use(name, arguments, "failed")

    async def ask_json(self, name: str, /, **arguments: Any) -> Any:
        return json.loads(await self.ask(name, **arguments))

    async def fail_json(self, name: str, /, **arguments: Any) -> Any:
        return json.loads(await self.fail(name, **arguments))

    async def _use(self, name: str, arguments: Mapping[str, Any], status: str) -> str:
        self.expected.append((name, status))
        function = {"name": name, "arguments": json.dumps(arguments)}
        number = f"c{len(self.expected)}"
        wanted = [{"index": 0, "id": number, "type": "function", "function": function}]
        await self.call.stream(
            [
                {"choices": [{"index": 0, "delta": {"tool_calls": wanted}, "finish_reason": None}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
                {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
            ]
        )
        self.call = await self.provider.next_call()
        last = self.call.body["messages"][-1]
        assert (last["role"], last["tool_call_id"]) == ("tool", number), last
        return str(last["content"])

    @property
    def offered(self) -> dict[str, Any]:
        """The functions the model is offered, as it is told of them, by name."""
        tools = self.call.body.get("tools", [])
        return {tool["function"]["name"]: tool["function"] for tool in tools}


@dataclass
class NodeBench:
    """Builds workflows of one user for one test, all under one slug."""

    api: Api
    provider: ModelServer
    slug: str
    built: int = 0

    async def run(
        self,
        nodes: Mapping[str, tuple[str, Mapping[str, Any]]],
        edges: str = "",
        *,
        fails: Sequence[str] = (),
        payload: Mapping[str, Any] | None = None,
        answers: Sequence[str] = (),
    ) -> Run:
        """Run nodes, those without an edge right after a manual trigger `t`.

        Args:
            nodes: `{node_id: (type, extra_config)}`; the key `system_prompt` goes where it belongs.
            fails: those that must fail; a handler lets the rest go on.
            answers: what the model `m` says, call by call.
        """
        slug = await self.build(nodes, edges, fails=fails)
        execution = await self.api.run(slug, **(payload or {}))
        for answer in answers:
            await (await self.provider.next_call()).say(answer)
        return Run(await self.api.wait_end(execution))

    async def problem(
        self, nodes: Mapping[str, tuple[str, Mapping[str, Any]]], edges: str = ""
    ) -> tuple[str, str]:
        """Run a workflow that must fail; return its error and the code."""
        run = await self.run(nodes, edges)
        assert run.detail["status"] == "failed", run.detail
        return run.detail["error_message"], run.detail["error_code"]

    async def build(
        self,
        nodes: Mapping[str, tuple[str, Mapping[str, Any]]],
        edges: str = "",
        *,
        fails: Sequence[str] = (),
        trigger: str = "trigger_manual",
        **more: object,
    ) -> str:
        """Build such a workflow and return its slug. An AI model `m` is there if it is meant."""
        self.built += 1
        slug = f"{self.slug}-{self.built}"
        reached = {edge.split(" -> ")[1].split()[0] for edge in filter(None, edges.split(", "))}
        sources = {edge.split(" -> ")[0] for edge in filter(None, edges.split(", "))}
        labelled = {
            edge.split(" -> ")[0] for edge in filter(None, edges.split(", ")) if " : " in edge
        }
        triggers = {name for name, (kind, _) in nodes.items() if kind.startswith("trigger_")}
        loose = [name for name in nodes if name not in reached | labelled | triggers]
        flow = [f"t -> {name}" for name in loose]
        flow += [f"{name} -> h_{name}" for name in fails]
        found: dict[str, tuple[str, Mapping[str, Any]]] = {"t": (trigger, {})}
        if "m" in sources:
            model = {"llm_credential_id": await self.api.add_model(self.provider.url)}
            found["m"] = ("ai_model", {**model, "model_name": "demo-1"})
        found |= {name: (kind, _config(extra)) for name, (kind, extra) in nodes.items()}
        found |= {f"h_{name}": ("error_handler", {}) for name in fails}
        await self.api.build(slug, found, ", ".join([*flow, *filter(None, [edges])]), **more)
        return slug

    @asynccontextmanager
    async def agent(
        self,
        tools: Mapping[str, tuple[str, Mapping[str, Any]]],
        component_type: str = "agent",
        /,
        **extra: Any,
    ) -> AsyncIterator[Talk]:
        """Let an agent `a` with these tools talk with its model, for the length of the block."""
        attached = [f"{name} -> a : tool" for name in tools]
        nodes = {"a": (component_type, extra), **tools}
        slug = await self.build(nodes, ", ".join(["m -> a : llm", "t -> a", *attached]))
        execution = await self.api.run(slug)
        talk = Talk(self.provider, await self.provider.next_call())
        yield talk
        await talk.call.say("done")
        detail = await self.api.wait_end(execution)
        assert detail["status"] == "completed", detail
        told = [
            (event["data"]["tool_name"], event["data"]["status"])
            for event in await self.api.events(execution)
            if event["data"].get("is_tool_call") and event["data"]["status"] in ENDS
        ]
        assert told == talk.expected


def _config(extra: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(extra)
    prompt = own.pop("system_prompt", "")
    return {"system_prompt": prompt, "extra_config": own}

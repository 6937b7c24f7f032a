"""Subagents: a deep agent hands a task to another agent, which has a conversation of its own.

What a subagent has done is saved with the run of its parent, so that a recovery goes on in the
middle of a task. Contract: node-types.md §5.2.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Usage, Warning_
from pipelit.engine.values import to_number, to_text
from pipelit.nodes.agent import AgentRun
from pipelit.nodes.agent_files import node_of
from pipelit.nodes.agent_loop import Loop, Steps, answer_in
from pipelit.nodes.agent_model import resolve_model
from pipelit.nodes.base import RunEvent, RunPort, Tool, ToolContext, ToolError
from pipelit.nodes.tool_schema import tool_spec

MAX_SUBAGENTS = 50
DEFAULT_WALL_SECONDS = 7200.0


class Subagent(msgspec.Struct, frozen=True, kw_only=True):
    """One of the configured subagents. `model`: empty for the parent's."""

    name: str
    description: str
    system_prompt: str
    model: str = ""


def read_subagents(raw: Any) -> tuple[dict[str, Subagent], tuple[Warning_, ...]]:
    """Return the subagents of a config by name; what is not usable is warned of."""
    found: dict[str, Subagent] = {}
    warnings: list[Warning_] = []
    for index, entry in enumerate(raw if isinstance(raw, list) else ()):
        given = entry if isinstance(entry, dict) else {}
        fields = {name: to_text(given.get(name)).strip() for name in Subagent.__struct_fields__}
        lacking = [name for name in ("name", "description", "system_prompt") if not fields[name]]
        if lacking or fields["name"] in found or len(found) >= MAX_SUBAGENTS:
            why = f"has no {lacking[0]}" if lacking else "is one too many"
            message = f"Subagent {index} {why}; it is ignored."
            warnings.append({"code": "subagent_ignored", "message": message})
        else:
            found[fields["name"]] = Subagent(**fields)
    return found, tuple(warnings)


def task_tool(run: AgentRun, subagents: dict[str, Subagent], own: tuple[Tool, ...]) -> Tool:
    """Offer `task`. *own*: the parent's built-in tools, which its subagents have too."""
    listed = "\n".join(f"- {one.name}: {one.description}" for one in subagents.values())
    spec = tool_spec(
        "task",
        f"Hand a task to a subagent, which knows nothing but its description:\n{listed}",
        {
            "description": {"type": "string", "description": "The task, with all it needs"},
            "subagent_type": {"type": "string", "description": "Name of the subagent"},
        },
        required=("description", "subagent_type"),
    )

    async def task(arguments: dict[str, Any], context: ToolContext) -> str:
        subagent = subagents.get(arguments["subagent_type"])
        if subagent is None:
            raise ToolError(f"unknown subagent '{arguments['subagent_type']}'")
        return await _Task(run, context.idempotency_key).run(
            subagent, arguments["description"], own
        )

    wall = to_number(run.call.extra.get("max_wall_time"))
    timeout = float(wall) if wall else DEFAULT_WALL_SECONDS
    return Tool(spec=spec, node=node_of(run.call.node, "task"), run=task, timeout=timeout)


class _Task:
    """One task of a subagent; the host of its loop, on behalf of the parent's run."""

    def __init__(self, parent: AgentRun, key: str) -> None:
        self._parent = parent
        self._key = key

    async def run(self, subagent: Subagent, description: str, own: Sequence[Tool]) -> str:
        """Return the subagent's final text."""
        parent = self._parent
        model = await resolve_model(self._call_of(subagent), parent.parts.models)
        begun = parent.desk.subagents.get(self._key)
        loop = Loop(
            begun or Steps(messages=(self.message("user", description),)),
            self,
            model=model,
            toolbox=parent.toolbox(own, search=not model.native_search, key=self._key),
            system=subagent.system_prompt,
            limit=parent.limit,
        )
        await loop.run()
        return answer_in(loop.steps.messages)

    def _call_of(self, subagent: Subagent) -> Any:
        """Return the parent's call, with the subagent's model."""
        call = self._parent.call
        node = call.attached.model
        if node is None or not subagent.model:
            return call
        config = {**node.config, "model_name": subagent.model}
        other = msgspec.structs.replace(node, config=config)
        return replace(call, attached=replace(call.attached, model=other))

    # The host of the loop.

    @property
    def port(self) -> RunPort:
        """The parent's."""
        return self._parent.port

    def now(self) -> str:
        """Return the time, as messages carry it."""
        return self._parent.now()

    def message(self, role: Any, content: str, **fields: Any) -> ChatMessage:
        """Return a new message."""
        return self._parent.message(role, content, **fields)

    def keep(self, steps: Steps) -> None:
        """Remember what has been done beside what the parent has done."""
        others = self._parent.desk.subagents
        self._parent.keep_on_desk(subagents={**others, self._key: steps})

    def count(self, spent: Usage, *warnings: Warning_) -> None:
        """Let the parent's node pay."""
        self._parent.count(spent, *warnings)

    async def save(self, events: list[RunEvent]) -> None:
        """Commit it together with what the parent has done."""
        await self._parent.save(events)

    def say(self, _text: str) -> list[RunEvent]:
        """Announce nothing: only the parent talks to people."""
        return []

    def listen(self) -> None:
        """Let nobody hear the answer while it comes."""

"""The agent: its input, its memory, what it reports; the loop itself is in `agent_loop`.

Everything it has done is saved after each model answer and each tool result, so a retry or a
recovery repeats neither. Contract: engine.md §22, §23.4, §25.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import trio

from pipelit.clock import format_instant
from pipelit.engine.compaction import read_compaction, split_stored
from pipelit.engine.messages import ChatMessage, parse_message, sanitise
from pipelit.engine.outcome import Outcome, Report, Usage, Warning_
from pipelit.engine.storable import clean_text
from pipelit.llm.types import ModelResponse
from pipelit.nodes.agent_loop import Loop, Steps, answer_in
from pipelit.nodes.agent_model import ModelParts, resolve_model
from pipelit.nodes.agent_tools import Toolbox
from pipelit.nodes.base import (
    Component,
    NodeCall,
    RunEvent,
    RunPort,
    Tool,
    ToolFactory,
)
from pipelit.nodes.key_mask import KeyMask
from pipelit.nodes.sandbox_config import read_workspace
from pipelit.nodes.skills import Shelf, SkillLibrary

DEFAULT_MAX_ITERATIONS = 50
MAX_ITERATIONS = 200

DescribeEnvironment: TypeAlias = Callable[[int, int, Sequence[str]], Awaitable[str]]
"""(workflow id, workspace id, folders of skills) -> what the sandbox offers (engine.md §22.7)."""


@dataclass(frozen=True, kw_only=True)
class AgentParts:
    """What agents are built from."""

    models: ModelParts
    tools: Mapping[str, ToolFactory]
    skills: SkillLibrary = field(default_factory=SkillLibrary)
    environment: DescribeEnvironment | None = None


class Desk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a deep agent's own tools keep. Contract: node-types.md §5.2."""

    todos: tuple[dict[str, Any], ...] = ()
    files: dict[str, str] = {}
    """{absolute path: text} of the backend `state`."""
    subagents: dict[str, Steps] = {}
    """{key of the tool call: what its subagent has done}, of calls without a result."""


class Progress(Steps, frozen=True, kw_only=True, omit_defaults=True):
    """A run so far, as saved. `usage` covers all attempts of the activation."""

    remembered: tuple[ChatMessage, ...] = ()
    """What the node remembered of the thread when the run began."""
    usage: Usage = Usage()
    spoken: str | None = None
    warnings: tuple[dict[str, Any], ...] = ()
    desk: Desk = Desk()


OwnTools: TypeAlias = Callable[["AgentRun"], Awaitable[Sequence[Tool]]]
"""Makes the tools that an agent has without any node."""


def agent_component(parts: AgentParts) -> Component:
    """Return the component of type `agent`."""

    async def agent(call: NodeCall) -> Outcome:
        return await AgentRun(call, parts).run()

    return agent


class AgentRun:
    """One run of one agent. Owned by the node's task; the host of its loop."""

    def __init__(
        self, call: NodeCall, parts: AgentParts, own_tools: OwnTools | None = None
    ) -> None:
        if call.run is None:
            raise TypeError("an agent runs only inside an execution")
        self.call = call
        self.parts = parts
        self.port: RunPort = call.run
        self.limit = _clamp(call.extra.get("max_iterations"))
        self._own_tools = own_tools
        self._prompt: str = call.config.get("system_prompt") or ""
        self._template: str | None = call.extra.get("input_template")
        self._remembers = call.extra.get("conversation_memory") is True
        self._keys = KeyMask()
        self._saving = trio.Lock()
        self._unsaved: list[RunEvent] = []
        self._is_saved = True

    async def run(self) -> Outcome:
        """Run to the final answer."""
        self._progress = await self._restore()
        known = self._progress.summary
        model = await resolve_model(self.call, self.parts.models)
        shelf = await self.parts.skills.open(self.call.attached.skills)
        skills = self.parts.skills.tools(shelf, self.call.attached.skills)
        self.count(Usage(), *model.warnings, *shelf.warnings)
        own = await self._own_tools(self) if self._own_tools is not None else ()
        about = await self._describe_environment(shelf)
        loop = Loop(
            self._progress,
            self,
            model=model,
            toolbox=self.toolbox([*skills, *own], search=not model.native_search),
            system="\n\n".join(part for part in (about, self._prompt, shelf.prompt) if part),
            limit=self.limit,
            remembered=self._progress.remembered,
            compaction=read_compaction(self.call.extra),
        )
        response = await loop.run()
        return self._finish(response, is_new_summary=self._progress.summary != known)

    def toolbox(self, own: Sequence[Tool], *, search: bool, key: str | None = None) -> Toolbox:
        """Return the tools of the attached nodes, and *own*.

        Args:
            own: those without a node.
            search: whether `web_search` nodes are offered.
            key: what the keys of calls begin with; None: the key of the activation.
        """
        return Toolbox(self.call, self.parts.tools, search=search, own=own, key=key)

    async def _describe_environment(self, shelf: Shelf) -> str:
        workspace_id = read_workspace(self.call.extra)
        if workspace_id is None or self.parts.environment is None:
            return ""
        folders = [skill.folder.name for skill in shelf.skills]
        return await self.parts.environment(self.call.identity.workflow_id, workspace_id, folders)

    @property
    def desk(self) -> Desk:
        """What the agent's own tools keep."""
        return self._progress.desk

    def keep_on_desk(self, **changes: Any) -> None:
        """Change what the agent's own tools keep; saved with the result of the call."""
        self._change(desk=msgspec.structs.replace(self.desk, **changes))

    async def _restore(self) -> Progress:
        if self.port.progress is not None:
            saved = msgspec.convert(self.port.progress, Progress)
            return msgspec.structs.replace(saved, usage=_larger(saved.usage, self.port.recorded))
        stored = await self.port.history() if self._remembers else ()
        remembered, summary = split_stored(stored)
        known = {message.id for message in remembered}
        fresh = tuple(message for message in self._input() if message.id not in known)
        return Progress(
            messages=fresh, remembered=remembered, summary=summary, usage=self.port.recorded
        )

    def _input(self) -> tuple[ChatMessage, ...]:
        if self._template:
            return (self.message("user", self._template),)
        has_template = bool(self.call.node.extra.get("input_template"))  # rendered to nothing
        shared = () if has_template else tuple(map(parse_message, self.call.state["messages"]))
        if any(message.role == "user" for message in shared):
            return shared
        payload = self.call.state["trigger"].get("payload")
        text = msgspec.json.encode(payload).decode() if payload else "(no message)"
        return (*shared, self.message("user", text))

    def _finish(self, response: ModelResponse, *, is_new_summary: bool) -> Outcome:
        events = self.say(response.text)
        shown, summary = self._keys.hide(self._progress.messages), self._progress.summary
        kept = [m for m in map(sanitise, shown) if m is not None]
        if summary is not None and is_new_summary:
            kept += self._keys.hide([summary.to_stored()])
        return Outcome(
            ports={
                "output": answer_in(shown),
                "messages": [message.to_json() for message in shown],
            },
            messages=shown[-1:] if shown[-1].text else (),
            spoken=self._keys.text(response.text) if events else None,
            remember=tuple(kept) if self._remembers else (),
            report=self._report(),
        )

    # The host of the loop.

    def keep(self, steps: Steps) -> None:
        """Remember what has been done."""
        given = {name: getattr(steps, name) for name in Steps.__struct_fields__}
        if not steps.open_calls and self.desk.subagents:
            self.keep_on_desk(subagents={})
        self._change(**given)

    def count(self, spent: Usage, *warnings: Warning_) -> None:
        """Add to what the node used, and to what was odd about it."""
        fresh = tuple(w for w in warnings if w not in self._progress.warnings)
        self._change(
            usage=self._progress.usage + spent, warnings=(*self._progress.warnings, *fresh)
        )

    def say(self, text: str) -> list[RunEvent]:
        """Announce a text, unless it is the one announced last."""
        if not text or text == self._progress.spoken:
            return []
        self._change(spoken=text)
        data = {
            "execution_id": self.call.identity.execution_id,
            "node_id": self.call.node.node_id,
            "text": self._keys.text(text),
        }
        return [RunEvent("chat_message", data)]

    def listen(self) -> Callable[[str], None]:
        """Publish the next answer while it comes."""
        pieces = 0

        def on_text(text: str) -> None:
            nonlocal pieces
            self.port.delta(text, pieces)
            pieces += 1

        return on_text

    async def save(self, events: list[RunEvent]) -> None:
        """Save the progress; what comes while a save is under way goes along with the next."""
        self._unsaved += events
        self._is_saved = False
        async with self._saving:
            if self._is_saved:
                return
            told, self._unsaved, self._is_saved = self._unsaved, [], True
            try:
                await self.port.save(msgspec.to_builtins(self._progress), told)
            except BaseException:
                # Cancelled, or refused: whoever waits saves these too.
                self._unsaved, self._is_saved = told + self._unsaved, False
                raise

    def message(self, role: Any, content: str, **fields: Any) -> ChatMessage:
        """Return a new message."""
        message_id = self.call.services.ids.hex(12)
        return ChatMessage(
            id=message_id, role=role, content=clean_text(content), timestamp=self.now(), **fields
        )

    def now(self) -> str:
        """Return the time, as messages carry it."""
        return format_instant(self.call.services.clock.now())

    def _change(self, **changes: Any) -> None:
        self._progress = msgspec.structs.replace(self._progress, **changes)
        self.port.note(self._report())

    def _report(self) -> Report:
        """Say what this attempt has done; what earlier ones used is in their own log rows."""
        used: dict[str, int] = {
            name: getattr(self._progress.usage, name) - getattr(self.port.recorded, name)
            for name in Usage.__struct_fields__
        }
        for steps in self.desk.subagents.values():  # their keys are hidden too
            self._keys.hide((*steps.messages, *steps.results.values()))
        model = self.call.attached.model
        return Report(
            usage=Usage(**used),
            model=(model.config.get("model_name") or None) if model is not None else None,
            input=self._log_input() or None,
            trace=self._keys.hide((*self._progress.messages, *self._progress.results.values())),
            warnings=self._progress.warnings,
            todos=self._progress.desk.todos,
        )

    def _log_input(self) -> dict[str, str]:
        said = {"system_prompt": self._prompt}
        if self._template:
            said["input_template"] = self._template
        else:
            users = [m.text for m in self._progress.messages if m.role == "user"]
            said["text"] = users[-1] if users else ""
        return {key: text[:4000] for key, text in said.items() if text}


def _larger(saved: Usage, recorded: Usage) -> Usage:
    """Return what all attempts used.

    More was saved if a crash kept an attempt from its log row; more is recorded if an attempt
    failed after its last save.
    """
    names = Usage.__struct_fields__
    return Usage(**{name: max(getattr(saved, name), getattr(recorded, name)) for name in names})


def _clamp(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return max(1, min(value, MAX_ITERATIONS))
    return DEFAULT_MAX_ITERATIONS

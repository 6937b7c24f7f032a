"""The agent: asks its model, runs the tools it calls, until an answer comes.

Everything it has done is saved after each model answer and each tool result, so a retry or a
recovery repeats neither. Contract: engine.md §22, §23.4, §25.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import trio

from pipelit.clock import format_instant
from pipelit.engine.messages import ChatMessage, ToolCall, parse_message, sanitise
from pipelit.engine.outcome import Outcome, Report, Usage, Warning_
from pipelit.engine.storable import clean_text, flaw
from pipelit.llm.types import InvalidToolCall, ModelResponse
from pipelit.nodes.agent_model import Model, ModelParts, resolve_model
from pipelit.nodes.agent_tools import MAX_CALLS, Toolbox, ToolResult
from pipelit.nodes.base import Component, NodeCall, NodeError, RunEvent, RunPort, ToolFactory
from pipelit.nodes.key_mask import KeyMask
from pipelit.nodes.model_call import Prompt, call_model
from pipelit.nodes.sandbox_config import read_workspace
from pipelit.nodes.skills import SkillLibrary

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


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run so far, as saved. `usage` covers all attempts of the activation."""

    messages: tuple[ChatMessage, ...]
    """The messages of the run, its input included."""
    remembered: tuple[ChatMessage, ...] = ()
    """What the node remembered of the thread when the run began."""
    results: dict[str, ChatMessage] = {}
    """{tool call id: result} of the last answer's calls."""
    usage: Usage = Usage()
    model_calls: int = 0
    spoken: str | None = None
    warnings: tuple[dict[str, Any], ...] = ()

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls of the last answer that have no result yet."""
        last = self.messages[-1] if self.messages else None
        calls = last.tool_calls if last is not None and last.role == "assistant" else ()
        return tuple(call for call in calls if call.id not in self.results)


def agent_component(parts: AgentParts) -> Component:
    """Return the component of type `agent`."""

    async def agent(call: NodeCall) -> Outcome:
        return await AgentRun(call, parts).run()

    return agent


class AgentRun:
    """One run of one agent. Owned by the node's task."""

    def __init__(self, call: NodeCall, parts: AgentParts) -> None:
        if call.run is None:
            raise TypeError("an agent runs only inside an execution")
        self._call = call
        self._parts = parts
        self._port: RunPort = call.run
        self._prompt: str = call.config.get("system_prompt") or ""
        self._template: str | None = call.extra.get("input_template")
        self._keys = KeyMask()
        self._environment = ""
        self._saving = trio.Lock()
        self._unsaved: list[RunEvent] = []
        self._is_saved = True

    async def run(self) -> Outcome:
        """Run to the final answer."""
        self._progress = await self._restore()
        self._model: Model = await resolve_model(self._call, self._parts.models)
        self._shelf = await self._parts.skills.open(self._call.attached.skills)
        self._warn(*self._model.warnings, *self._shelf.warnings)
        self._environment = await self._describe_environment()
        self._toolbox = self._open_toolbox()
        limit = _clamp(self._call.extra.get("max_iterations"))
        while True:
            await self._run_open_calls()
            if self._progress.model_calls >= limit:
                raise NodeError(
                    f"Agent stopped after {limit} iterations without a final answer",
                    code="AgentRecursionError",
                    retryable=False,
                    report=self._report(),
                )
            response = await self._ask_model()
            if not response.calls:
                return self._finish(response)
            await self._accept_calls(response)

    def _open_toolbox(self) -> Toolbox:
        return Toolbox(
            self._call,
            self._parts.tools,
            search=not self._model.native_search,
            own=self._parts.skills.tools(self._shelf, self._call.attached.skills),
        )

    async def _restore(self) -> Progress:
        if self._port.progress is not None:
            saved = msgspec.convert(self._port.progress, Progress)
            return msgspec.structs.replace(saved, usage=_larger(saved.usage, self._port.recorded))
        remembered: tuple[ChatMessage, ...] = ()
        if self._call.extra.get("conversation_memory") is True:
            remembered = await self._port.history()
        known = {message.id for message in remembered}
        fresh = tuple(message for message in self._input() if message.id not in known)
        return Progress(messages=fresh, remembered=remembered, usage=self._port.recorded)

    def _input(self) -> tuple[ChatMessage, ...]:
        if self._template:
            return (self._message("user", self._template),)
        has_template = bool(self._call.node.extra.get("input_template"))  # rendered to nothing
        shared = () if has_template else tuple(map(parse_message, self._call.state["messages"]))
        if any(message.role == "user" for message in shared):
            return shared
        payload = self._call.state["trigger"].get("payload")
        text = msgspec.json.encode(payload).decode() if payload else "(no message)"
        return (*shared, self._message("user", text))

    async def _ask_model(self) -> ModelResponse:
        """Call the model once."""
        progress = self._progress
        self._port.note(self._report())
        pieces = 0

        def on_text(text: str) -> None:
            nonlocal pieces
            self._port.delta(text, pieces)
            pieces += 1

        response = await call_model(
            self._model,
            Prompt(
                system=self._model.system_messages(self._system_prompt(), self._now()),
                conversation=(*progress.remembered, *progress.messages),
                tools=self._toolbox.specs,
            ),
            self._port,
            on_text=on_text,
            on_spent=self._count,
        )
        return msgspec.structs.replace(response, text=clean_text(response.text))

    def _system_prompt(self) -> str:
        parts = (self._environment, self._prompt, self._shelf.prompt)
        return "\n\n".join(part for part in parts if part)

    async def _describe_environment(self) -> str:
        workspace_id = read_workspace(self._call.extra)
        if workspace_id is None or self._parts.environment is None:
            return ""
        folders = [skill.folder.name for skill in self._shelf.skills]
        workflow_id = self._call.identity.workflow_id
        return await self._parts.environment(workflow_id, workspace_id, folders)

    def _count(self, spent: Usage, warnings: tuple[Warning_, ...]) -> None:
        self._change(usage=self._progress.usage + spent, model_calls=self._progress.model_calls + 1)
        self._warn(*warnings)

    async def _accept_calls(self, response: ModelResponse) -> None:
        """Save an answer that calls tools, and announce them."""
        calls, invalid = _name_calls(response)
        answer = self._message("assistant", response.text, tool_calls=calls, usage=response.usage)
        refused = [
            *(self._toolbox.refuse_arguments(call, detail) for call, detail in invalid),
            *map(self._toolbox.refuse_surplus, calls[MAX_CALLS:]),
        ]
        self._change(
            messages=(*self._progress.messages, answer),
            results={result.call.id: self._result(result) for result in refused},
            usage=self._progress.usage + Usage(tool_invocations=len(calls)),
        )
        events = [*self._say(response.text), *self._toolbox.announce(calls[:MAX_CALLS])]
        await self._save([*events, *(event for result in refused for event in result.events)])

    async def _run_open_calls(self) -> None:
        """Run the calls that have no result yet, together; then append all in call order."""
        if self._progress.open_calls:
            await self._toolbox.run(self._progress.open_calls, self._settle, self._port.alive)
        last = self._progress.messages[-1]
        if last.role == "assistant" and last.tool_calls:
            results = self._progress.results
            ordered = tuple(results[call.id] for call in last.tool_calls)
            self._change(messages=(*self._progress.messages, *ordered), results={})

    async def _settle(self, result: ToolResult) -> None:
        """Save one tool result with the event that announces it."""
        results = {**self._progress.results, result.call.id: self._result(result)}
        self._change(results=results)
        await self._save(result.events)

    def _result(self, result: ToolResult) -> ChatMessage:
        call = result.call
        return self._message("tool", result.text, tool_call_id=call.id, name=call.name)

    def _finish(self, response: ModelResponse) -> Outcome:
        final = self._message("assistant", response.text, usage=response.usage)
        events = self._say(response.text)
        self._change(messages=(*self._progress.messages, final))
        shown = self._keys.hide(self._progress.messages)
        said = [m.text for m in shown if m.role == "assistant" and m.text]
        remembers = self._call.extra.get("conversation_memory") is True
        kept = tuple(m for m in map(sanitise, shown) if m is not None)
        return Outcome(
            ports={
                "output": said[-1] if said else "",
                "messages": [message.to_json() for message in shown],
            },
            messages=(shown[-1],) if final.text else (),
            spoken=self._keys.text(response.text) if events else None,
            remember=kept if remembers else (),
            report=self._report(),
        )

    def _say(self, text: str) -> list[RunEvent]:
        """Announce a text, unless it is the one announced last."""
        if not text or text == self._progress.spoken:
            return []
        self._change(spoken=text)
        data = {
            "execution_id": self._call.identity.execution_id,
            "node_id": self._call.node.node_id,
            "text": self._keys.text(text),
        }
        return [RunEvent("chat_message", data)]

    async def _save(self, events: list[RunEvent]) -> None:
        """Save the progress; what comes while a save is under way goes along with the next."""
        self._unsaved += events
        self._is_saved = False
        async with self._saving:
            if self._is_saved:
                return
            told, self._unsaved, self._is_saved = self._unsaved, [], True
            await self._port.save(msgspec.to_builtins(self._progress), told)

    def _change(self, **changes: Any) -> None:
        self._progress = msgspec.structs.replace(self._progress, **changes)
        self._port.note(self._report())

    def _warn(self, *warnings: dict[str, Any]) -> None:
        fresh = tuple(w for w in warnings if w not in self._progress.warnings)
        self._change(warnings=(*self._progress.warnings, *fresh))

    def _report(self) -> Report:
        """Say what this attempt has done; what earlier ones used is in their own log rows."""
        used: dict[str, int] = {
            name: getattr(self._progress.usage, name) - getattr(self._port.recorded, name)
            for name in Usage.__struct_fields__
        }
        model = self._call.attached.model
        return Report(
            usage=Usage(**used),
            model=(model.config.get("model_name") or None) if model is not None else None,
            input=self._log_input() or None,
            trace=self._keys.hide((*self._progress.messages, *self._progress.results.values())),
            warnings=self._progress.warnings,
        )

    def _log_input(self) -> dict[str, str]:
        said = {"system_prompt": self._prompt}
        if self._template:
            said["input_template"] = self._template
        else:
            users = [m.text for m in self._progress.messages if m.role == "user"]
            said["text"] = users[-1] if users else ""
        return {key: text[:4000] for key, text in said.items() if text}

    def _message(self, role: Any, content: str, **fields: Any) -> ChatMessage:
        message_id = self._call.services.ids.hex(12)
        return ChatMessage(
            id=message_id, role=role, content=clean_text(content), timestamp=self._now(), **fields
        )

    def _now(self) -> str:
        return format_instant(self._call.services.clock.now())


def _name_calls(
    response: ModelResponse,
) -> tuple[tuple[ToolCall, ...], list[tuple[ToolCall, str]]]:
    """Give every call an id of its own; set apart those with unusable arguments, and why."""
    calls: list[ToolCall] = []
    invalid: list[tuple[ToolCall, str]] = []
    seen: set[str] = set()
    for index, given in enumerate(response.calls):
        call_id, name = clean_text(given.id), clean_text(given.name)
        while not call_id or call_id in seen:
            call_id = f"{call_id or 'call'}_{index}"
        seen.add(call_id)
        problem = _problem_of(given)
        arguments = given.arguments if isinstance(given, ToolCall) and problem is None else {}
        calls.append(ToolCall(call_id, name, arguments))
        if problem is not None and index < MAX_CALLS:
            invalid.append((calls[-1], problem))
    return tuple(calls), invalid


def _problem_of(given: ToolCall | InvalidToolCall) -> str | None:
    if isinstance(given, InvalidToolCall):
        return clean_text(f"not a JSON object: {given.raw_arguments[:200]}")
    return flaw(given.arguments)


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

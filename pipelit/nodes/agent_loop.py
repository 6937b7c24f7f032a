"""The loop of an agent or a subagent: ask the model, run the tools it calls, until it answers.

What has been done is told to the loop's host after each step, who saves it; a loop that begins
with saved steps repeats none of them. Contract: engine.md §22.2–22.5, §24.5.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any, Protocol

import msgspec

from pipelit.engine.compaction import TASK, Compaction, Summary, compacted, transcript
from pipelit.engine.context import count_tokens
from pipelit.engine.messages import ChatMessage, ToolCall
from pipelit.engine.outcome import Usage, Warning_
from pipelit.engine.storable import clean_text, flaw
from pipelit.llm.types import InvalidToolCall, ModelResponse
from pipelit.nodes.agent_model import Model
from pipelit.nodes.agent_tools import MAX_CALLS, Toolbox, ToolResult
from pipelit.nodes.base import NodeError, RunEvent, RunPort
from pipelit.nodes.model_call import Prompt, call_model


class Steps(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a loop has done."""

    messages: tuple[ChatMessage, ...]
    """The messages of the loop, its input included."""
    results: dict[str, ChatMessage] = {}
    """{tool call id: result} of the last answer's calls."""
    model_calls: int = 0
    summary: Summary | None = None
    """What stands for the older messages in calls."""

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls of the last answer that have no result yet."""
        last = self.messages[-1] if self.messages else None
        calls = last.tool_calls if last is not None and last.role == "assistant" else ()
        return tuple(call for call in calls if call.id not in self.results)


def answer_in(messages: Sequence[ChatMessage]) -> str:
    """Return the text of the last answer that has one."""
    said = (m.text for m in reversed(messages) if m.role == "assistant" and m.text)
    return next(said, "")


class Host(Protocol):
    """Who runs a loop."""

    @property
    def port(self) -> RunPort:
        """The node's."""

    def now(self) -> str:
        """Return the time, as messages carry it."""

    def message(self, role: Any, content: str, **fields: Any) -> ChatMessage:
        """Return a new message."""

    def keep(self, steps: Steps) -> None:
        """Remember what has been done."""

    def count(self, spent: Usage, *warnings: Warning_) -> None:
        """Add to what the node used."""

    async def save(self, events: list[RunEvent]) -> None:
        """Commit what is remembered, with the events that tell of it."""

    def say(self, text: str) -> list[RunEvent]:
        """Return what announces a text of the model."""

    def listen(self) -> Callable[[str], None] | None:
        """Return who hears the next answer while it comes."""


class Loop:
    """One run of a loop. Owned by its host.

    Args:
        steps: what was done before, at least the input.
        host: who keeps and saves the steps.
        model: whom to ask.
        toolbox: what the model may call.
        system: the system prompt.
        limit: model calls in all, the earlier ones included.
        remembered: messages before the input.
        compaction: when older messages are summarised; None: never.
    """

    def __init__(
        self,
        steps: Steps,
        host: Host,
        *,
        model: Model,
        toolbox: Toolbox,
        system: str,
        limit: int,
        remembered: tuple[ChatMessage, ...] = (),
        compaction: Compaction | None = None,
    ) -> None:
        self.steps = steps
        self._host = host
        self._model = model
        self._toolbox = toolbox
        self._system = system
        self._limit = limit
        self._remembered = remembered
        self._compaction = compaction

    async def run(self) -> ModelResponse:
        """Go on to the final answer; it is the last of the loop's messages.

        Raises:
            NodeError: `AgentRecursionError`; what the budget and the limits of a run refuse.
            ProviderError: the model did not answer.
        """
        while True:
            await self._run_open_calls()
            if self.steps.model_calls >= self._limit:
                raise NodeError(
                    f"Agent stopped after {self._limit} iterations without a final answer",
                    code="AgentRecursionError",
                    retryable=False,
                )
            await self._compact()
            response = await self._ask_model()
            if not response.calls:
                final = self._host.message("assistant", response.text, usage=response.usage)
                self._change(messages=(*self.steps.messages, final))
                return response
            await self._accept_calls(response)

    async def _ask_model(self) -> ModelResponse:
        def count(spent: Usage, warnings: tuple[Warning_, ...]) -> None:
            self._host.count(spent, *warnings)
            self._change(model_calls=self.steps.model_calls + 1)

        response = await call_model(
            self._model,
            Prompt(
                system=self._model.system_messages(self._system, self._host.now()),
                conversation=self._conversation(),
                tools=self._toolbox.specs,
            ),
            self._host.port,
            on_text=self._host.listen(),
            on_spent=count,
        )
        return msgspec.structs.replace(response, text=clean_text(response.text))

    def _conversation(self) -> tuple[ChatMessage, ...]:
        return compacted((*self._remembered, *self.steps.messages), self.steps.summary)

    async def _compact(self) -> None:
        """Have the older messages summarised if the conversation has grown too long."""
        if self._compaction is None:
            return
        everything = (*self._remembered, *self.steps.messages)
        system = self._model.system_messages(self._system, self._host.now())
        due = self._compaction.plan(
            everything,
            self.steps.summary,
            window=self._model.window,
            beside=sum(map(count_tokens, system)),
        )
        if due is None:
            return
        text = await self._summarise(due.messages)
        if text:
            message = self._host.message("user", text)
            self._change(summary=Summary(before=due.before, message=message))
            await self._host.save([])

    async def _summarise(self, messages: tuple[ChatMessage, ...]) -> str:
        """Have the model summarise; nobody watches it, and it counts for no limit."""
        response = await call_model(
            self._model,
            Prompt(
                system=self._model.system_messages(TASK, self._host.now()),
                conversation=(self._host.message("user", transcript(messages)),),
            ),
            self._host.port,
            on_spent=lambda spent, warnings: self._host.count(spent, *warnings),
        )
        return clean_text(response.text).strip()

    async def _accept_calls(self, response: ModelResponse) -> None:
        """Save an answer that calls tools, and announce them."""
        calls, invalid = _name_calls(response, self.steps.messages)
        answer = self._host.message(
            "assistant", response.text, tool_calls=calls, usage=response.usage
        )
        refused = [
            *(self._toolbox.refuse_arguments(call, detail) for call, detail in invalid),
            *map(self._toolbox.refuse_surplus, calls[MAX_CALLS:]),
        ]
        self._host.count(Usage(tool_invocations=len(calls)))
        self._change(
            messages=(*self.steps.messages, answer),
            results={result.call.id: self._result(result) for result in refused},
        )
        events = [*self._host.say(response.text), *self._toolbox.announce(calls[:MAX_CALLS])]
        await self._host.save([*events, *(event for result in refused for event in result.events)])

    async def _run_open_calls(self) -> None:
        """Run the calls that have no result yet, together; then append all in call order."""
        if self.steps.open_calls:
            await self._toolbox.run(self.steps.open_calls, self._settle, self._host.port.alive)
        last = self.steps.messages[-1]
        if last.role == "assistant" and last.tool_calls:
            results = self.steps.results
            ordered = tuple(results[call.id] for call in last.tool_calls)
            self._change(messages=(*self.steps.messages, *ordered), results={})

    async def _settle(self, result: ToolResult) -> None:
        """Save one tool result with the event that announces it."""
        self._change(results={**self.steps.results, result.call.id: self._result(result)})
        await self._host.save(result.events)

    def _result(self, result: ToolResult) -> ChatMessage:
        call = result.call
        return self._host.message("tool", result.text, tool_call_id=call.id, name=call.name)

    def _change(self, **changes: Any) -> None:
        self.steps = msgspec.structs.replace(self.steps, **changes)
        self._host.keep(self.steps)


def _name_calls(
    response: ModelResponse, earlier: Sequence[ChatMessage]
) -> tuple[tuple[ToolCall, ...], list[tuple[ToolCall, str]]]:
    """Give every call an id of its own; set apart those with unusable arguments, and why.

    Providers that number the calls of each answer anew would have a later call taken for a
    repetition of an earlier one: the id is part of its idempotency key.
    """
    calls: list[ToolCall] = []
    invalid: list[tuple[ToolCall, str]] = []
    seen = {call.id for message in earlier for call in message.tool_calls}
    for index, given in enumerate(response.calls):
        call_id, name = clean_text(given.id), clean_text(given.name)
        if not call_id or call_id in seen:
            call_id = _unlike(call_id or "call", seen)
        seen.add(call_id)
        problem = _problem_of(given)
        arguments = given.arguments if isinstance(given, ToolCall) and problem is None else {}
        calls.append(ToolCall(call_id, name, arguments))
        if problem is not None and index < MAX_CALLS:
            invalid.append((calls[-1], problem))
    return tuple(calls), invalid


def _unlike(call_id: str, seen: Collection[str]) -> str:
    """Return the first of `<id>_1`, `<id>_2`, … that is not taken."""
    return next(name for n in count(1) if (name := f"{call_id}_{n}") not in seen)


def _problem_of(given: ToolCall | InvalidToolCall) -> str | None:
    if isinstance(given, InvalidToolCall):
        return clean_text(f"not a JSON object: {given.raw_arguments[:200]}")
    return flaw(given.arguments)

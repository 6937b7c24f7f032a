"""An agent's tools: offered, checked, run together, and told.

A tool's failure never fails the node: the model reads it. Contract: engine.md §22.4, §9.2.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import structlog
import trio

from pipelit.engine.budget import EXCEEDED, UNKNOWN_PRICE
from pipelit.engine.messages import ToolCall
from pipelit.engine.wire import node_status
from pipelit.errors import public_text
from pipelit.llm.types import ToolSpec
from pipelit.nodes.base import (
    NodeCall,
    NodeError,
    RunEvent,
    Tool,
    ToolContext,
    ToolError,
    ToolFactory,
    config_error,
)
from pipelit.nodes.children import ChildBatch, ChildEnd
from pipelit.nodes.tool_arguments import ArgumentChecker

MAX_CALLS = 128
"""Calls of one answer that are made; the model reads that the others were too many."""
MAX_TOGETHER = 10
MAX_RESULT = 50_000
_KEPT = 25_000

log = structlog.get_logger(__name__)


class ToolResult(msgspec.Struct, frozen=True):
    """What a call gave, and the event that says how it ended."""

    call: ToolCall
    text: str
    events: list[RunEvent]


class Toolbox:
    """The tools of one run. Names are unique: repeated ones get `_2`, `_3` in edge order.

    Args:
        search: whether `web_search` nodes are offered.
        own: tools of the agent itself, after those of attached nodes.
        key: what the keys of calls begin with; None: the key of the activation.
    """

    def __init__(
        self,
        call: NodeCall,
        factories: Mapping[str, ToolFactory],
        *,
        search: bool,
        own: Sequence[Tool] = (),
        key: str | None = None,
    ) -> None:
        self._call = call
        self._key = call.identity.idempotency_key if key is None else key
        self._tools: dict[str, Tool] = {}
        self._checkers: dict[str, ArgumentChecker] = {}
        self._waiting: set[str] = set()  # calls that wait for child executions
        for node, config in call.attached.tools:
            if node.component_type == "web_search" and not search:
                continue  # the provider searches itself (engine.md §21.6)
            factory = factories.get(node.component_type)
            if factory is None:
                raise config_error(f"Unknown component type: '{node.component_type}'")
            for tool in factory(node, config, call.services):
                self._add(tool)
        for tool in own:
            self._add(tool)
        self.specs = tuple(self._spec(name, tool) for name, tool in self._tools.items())

    def _add(self, tool: Tool) -> None:
        name, number = tool.spec.name, 1
        while name in self._tools:
            number += 1
            name = f"{tool.spec.name}_{number}"
        self._tools[name] = tool
        self._checkers[name] = ArgumentChecker(name, tool.spec.parameters)

    def _spec(self, name: str, tool: Tool) -> ToolSpec:
        return ToolSpec(name, tool.spec.description, tool.spec.parameters)

    def announce(self, calls: Sequence[ToolCall]) -> list[RunEvent]:
        """Return the `running` events of an answer's calls."""
        return [event for call in calls for event in self._event(call, "running")]

    def refuse_arguments(self, call: ToolCall, detail: str) -> ToolResult:
        """Return the result of a call whose arguments are no JSON object that can be stored."""
        return self._failed(call, f"invalid arguments for tool '{call.name}': {detail}", 0.0)

    def refuse_surplus(self, call: ToolCall) -> ToolResult:
        """Return the result of a call beyond `MAX_CALLS`. No event tells of it."""
        return ToolResult(call, f"Error: too many tool calls in one answer (limit {MAX_CALLS})", [])

    async def run(
        self,
        calls: Sequence[ToolCall],
        settle: Callable[[ToolResult], Awaitable[None]],
        alive: Callable[[], None],
    ) -> None:
        """Run *calls* together, some at a time; hand each result to *settle* as it comes.

        Raises:
            NodeError: the end of the budget, or of the room for progress: the other calls are
                cancelled.
        """
        limiter = trio.CapacityLimiter(MAX_TOGETHER)
        ends: list[NodeError] = []

        async def one(call: ToolCall) -> None:
            try:
                async with limiter:
                    alive()
                    result = self._resumed(await self._run_one(call))
                    alive()
                await settle(result)
            except NodeError as error:
                ends.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(partial(one, call))
        if ends:
            raise ends[0]

    async def _run_one(self, call: ToolCall) -> ToolResult:
        began = trio.current_time()
        tool = self._tools.get(call.name)
        if tool is None:
            return ToolResult(call, f"Error: unknown tool '{call.name}'", [])
        arguments, problem = self._checkers[call.name].check(call.arguments)
        if problem is not None:
            text = f"invalid arguments for tool '{call.name}': {problem}"
            return self._failed(call, text, began)
        context = ToolContext(
            idempotency_key=f"{self._key}:{call.id}",
            clock=self._call.services.clock,
            caller=self._call.identity,
            run_children=partial(self._run_children, call),
        )
        with trio.move_on_after(tool.timeout):
            try:
                text = await tool.run(arguments, context)
            except ToolError as error:
                return self._failed(call, str(error), began, told=error.told)
            except NodeError as error:
                if error.code in (EXCEEDED, UNKNOWN_PRICE):
                    raise  # of a model call in the tool: it ends the execution
                return self._failed(call, str(error), began)
            except Exception as error:
                # The model reads that the tool failed; the operator reads why.
                log.exception("tool failed", tool=call.name)
                return self._failed(call, public_text(error), began)
            duration = _milliseconds(began)
            events = self._event(call, "success", duration_ms=duration)
            return ToolResult(call, shorten(text), events)
        text = f"tool '{call.name}' timed out after {tool.timeout:g} seconds"
        return self._failed(call, text, began)

    async def _run_children(self, call: ToolCall, batch: ChildBatch) -> tuple[ChildEnd, ...]:
        """Run the children of a call: the agent and its tool say that they wait."""
        if self._call.run is None:
            raise TypeError("children run only inside an execution")

        def tell(ids: tuple[str, ...]) -> list[RunEvent]:
            fields = {"child_execution_ids": list(ids)}
            return [self._agent_event("waiting", **fields), *self._event(call, "waiting", **fields)]

        self._waiting.add(call.id)
        try:
            return await self._call.run.run_children(batch, tell)
        except NodeError:  # refused: nothing was waited for
            self._waiting.discard(call.id)
            raise

    def _resumed(self, result: ToolResult) -> ToolResult:
        """Say that the agent runs again when the last call that waited has its result."""
        if result.call.id not in self._waiting:
            return result
        self._waiting.discard(result.call.id)
        if self._waiting:
            return result
        again = self._agent_event("running", attempt=self._call.identity.attempt or None)
        return ToolResult(result.call, result.text, [again, *result.events])

    def _agent_event(self, status: str, **fields: Any) -> RunEvent:
        identity = self._call.identity
        data = node_status(identity.execution_id, self._call.node, status, **fields)
        return RunEvent("node_status", data)

    def _failed(
        self, call: ToolCall, message: str, began: float, *, told: str | None = None
    ) -> ToolResult:
        events = self._event(
            call,
            "failed",
            error=message[:500],
            error_code="ToolError",
            duration_ms=_milliseconds(began) if began else 0,
        )
        return ToolResult(call, shorten(f"Error: {message}" if told is None else told), events)

    def _event(self, call: ToolCall, status: str, **fields: Any) -> list[RunEvent]:
        tool = self._tools.get(call.name)
        if tool is None:
            return []
        data = node_status(
            self._call.identity.execution_id,
            tool.node,
            status,
            **fields,
            is_tool_call=True,
            tool_name=call.name,
            parent_node_id=self._call.node.node_id,
        )
        return [RunEvent("node_status", data)]


def shorten(text: str) -> str:
    """Cut the middle out of a result that is too long for a model."""
    if len(text) <= MAX_RESULT:
        return text
    cut = len(text) - 2 * _KEPT
    return f"{text[:_KEPT]}\n\n... ({cut} chars truncated) ...\n\n{text[-_KEPT:]}"


def _milliseconds(began: float) -> int:
    return round((trio.current_time() - began) * 1000)

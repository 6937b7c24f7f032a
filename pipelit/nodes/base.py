"""What a component gets and gives: the border between the engine and the node types.

A component is an async function of a `NodeCall` that returns an `Outcome` or raises `NodeError`.
A tool is what an agent may call; each tool-capable type has a factory that makes its tools.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import msgspec

from pipelit.clock import Clock, Ids
from pipelit.engine.budget import Estimate
from pipelit.engine.definition import NodeDef
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Outcome, Report, Usage
from pipelit.errors import PipelitError
from pipelit.llm.types import ToolSpec
from pipelit.net.http import HttpClient
from pipelit.nodes.children import ChildBatch, ChildEnd


class NodeError(PipelitError):
    """The attempt failed. `code`: engine.md §31; `retryable` False ends the node at once."""

    def __init__(
        self, message: str, *, code: str, retryable: bool = True, report: Report | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.report = report or Report()


def config_error(message: str) -> NodeError:
    """Return the error of a configuration that can never work."""
    return NodeError(message, code="ConfigError", retryable=False)


class ToolError(PipelitError):
    """A tool call failed.

    Args:
        told: what the model reads, where the contract words it otherwise than `Error: ` and the
            message.
    """

    def __init__(self, message: str, *, told: str | None = None) -> None:
        super().__init__(message)
        self.told = f"Error: {message}" if told is None else told


class RunIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Which attempt of which activation this is."""

    execution_id: str
    workflow_id: int
    workflow_slug: str
    node_id: str
    iteration: str
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """Stable across retries and recovery (engine.md §10.5)."""
        return f"{self.execution_id}:{self.node_id}:{self.iteration}"


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """What one tool call may know. `idempotency_key` is stable across retries and recovery."""

    idempotency_key: str
    clock: Clock
    caller: RunIdentity
    """The agent that calls."""
    run_children: "RunChildren | None" = None
    """Runs child executions and waits for them; None outside of an execution."""


RunChildren: TypeAlias = Callable[[ChildBatch], Awaitable[tuple[ChildEnd, ...]]]
ToolFunction: TypeAlias = Callable[[dict[str, Any], ToolContext], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function an agent may call. `timeout`: seconds; arguments are checked before `run`."""

    spec: ToolSpec
    node: NodeDef
    run: ToolFunction
    timeout: float = 300.0


class RunEvent(msgspec.Struct, frozen=True):
    """An event of a running node: its type and the data beside `execution_id`."""

    type: str
    data: dict[str, Any]


class Purse(Protocol):
    """What the model calls of an attempt are paid from. Contract: engine.md §25.4."""

    async def reserve(self, estimate: Estimate, on_alive: Callable[[], None]) -> str | None:
        """Wait until a call may begin; return what to settle it by, if anybody has to pay.

        Raises:
            NodeError: `BudgetExceededError`, `UnknownPriceError`: the execution ends.
        """

    def settle(self, reservation_id: str | None, used: Usage) -> None:
        """Note what a call has used: it is stored with what is saved next."""


class RunPort(Protocol):
    """How a long-running component reports while it runs. Implemented by the node's task."""

    @property
    def progress(self) -> Any:
        """What an earlier attempt or server saved; None at first."""

    @property
    def recorded(self) -> Usage:
        """What earlier attempts of this activation used: their log rows have it already."""

    @property
    def purse(self) -> Purse:
        """What the attempt's model calls are paid from."""

    def alive(self) -> None:
        """A sign of life: moves the inactivity deadline."""

    def note(self, report: Report) -> None:
        """Replace what the log row will say if the attempt is stopped from outside."""

    def delta(self, text: str, index: int) -> None:
        """Publish a piece of the answer being written; live only."""

    async def save(self, progress: Any, events: Sequence[RunEvent] = ()) -> None:
        """Commit the run's progress with the events it announces, then publish them.

        A retry or a recovery continues from the last saved progress.
        """

    async def history(self) -> tuple[ChatMessage, ...]:
        """Return the messages this node remembers of the thread."""

    async def run_children(
        self, batch: ChildBatch, tell: Callable[[tuple[str, ...]], Sequence[RunEvent]]
    ) -> tuple[ChildEnd, ...]:
        """Run child executions and wait for their ends, in the order of the calls.

        Those that were started before, with the same key, are not started again.

        Args:
            batch: what to run.
            tell: makes of their ids the events that are stored with their start.

        Raises:
            NodeError: `ConfigError`; one of them may not run.
        """


WithConfig: TypeAlias = tuple[NodeDef, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Attached:
    """The nodes attached to a node, in edge order; all but the model with their resolved config."""

    model: NodeDef | None = None
    tools: tuple[WithConfig, ...] = ()
    skills: tuple[WithConfig, ...] = ()
    output_parser: WithConfig | None = None


@dataclass(frozen=True, kw_only=True)
class NodeServices:
    """What components share: the outside world, injected."""

    clock: Clock
    ids: Ids
    http: HttpClient
    """HTTP for workflows: every address passes the egress policy (engine.md §32)."""


@dataclass(frozen=True, kw_only=True)
class NodeCall:
    """One attempt of one node.

    `config` is the node's config object with every expression resolved.
    `state` is the state object of engine.md §18.1, plain JSON data; never changed by a component.
    `predecessors` are the taken direct predecessors in edge order.
    `remaining_seconds` is the active time left to the execution.
    """

    identity: RunIdentity
    node: NodeDef
    config: dict[str, Any]
    state: dict[str, Any]
    predecessors: tuple[str, ...]
    primary_ports: dict[str, str]
    """{node_id: the port read when another node names no port}, for nodes with outputs."""
    remaining_seconds: float
    services: NodeServices
    attached: Attached = Attached()
    run: RunPort | None = None
    """Set for every node of an execution; None only for a component called on its own."""

    @property
    def extra(self) -> dict[str, Any]:
        """The type-specific part of the config."""
        extra: dict[str, Any] = self.config.get("extra_config") or {}
        return extra


Component: TypeAlias = Callable[[NodeCall], Awaitable[Outcome]]
ToolFactory: TypeAlias = Callable[[NodeDef, dict[str, Any], NodeServices], tuple[Tool, ...]]
"""(attached node, its resolved config, services) -> the tools it offers."""

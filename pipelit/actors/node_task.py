"""One attempt of one node: resolve its config, run its component inside its limits, name the end.

Runs as an own task of the execution's actor and touches none of its state: it computes, and saves
an agent's progress through the ledger. Contract: engine.md §8.2, §11.2, §20.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import structlog
import trio

from pipelit.actors.attempt_limits import limits_of
from pipelit.actors.attempt_ports import Asker, Expressions, Waits
from pipelit.actors.attempt_time import AttemptTime
from pipelit.actors.budgets import Budgets, Purse
from pipelit.actors.ledger import Ledger
from pipelit.actors.step_rows import Stamp, StepRows
from pipelit.clock import format_instant
from pipelit.engine.changes import Attempt, Ending
from pipelit.engine.definition import NodeDef
from pipelit.engine.endings import stopped_by
from pipelit.engine.graph import Plan
from pipelit.engine.journal import RunState
from pipelit.engine.messages import ChatMessage, parse_message
from pipelit.engine.outcome import Failure, Outcome, Report, Usage, json_size
from pipelit.engine.output import state_view
from pipelit.engine.questions import DEFAULT_PROMPT
from pipelit.engine.specs import primary_port
from pipelit.engine.storable import clean_text, cleaned, storable
from pipelit.engine.values import to_text
from pipelit.errors import public_text
from pipelit.llm.types import ProviderError
from pipelit.nodes.base import (
    Attached,
    Component,
    NodeCall,
    NodeError,
    NodeServices,
    RunEvent,
    RunIdentity,
    WithConfig,
)
from pipelit.nodes.children import ChildBatch, ChildEnd
from pipelit.store import Store
from pipelit.store.queries.journal import Loaded
from pipelit.store.queries.threads import MAX_MESSAGES, history

MAX_PROGRESS_BYTES = 16_777_216
"""JSON of what one run saves on its way: as much as a whole state may have."""

log = structlog.get_logger(__name__)

_Ended = TypeVar("_Ended", Outcome, Failure, Outcome | Failure)


@dataclass(frozen=True, kw_only=True)
class NodeRunner:
    """Prepares attempts. Shared by all executions."""

    store: Store
    budgets: Budgets
    services: NodeServices
    expressions: Expressions
    component_of: Callable[[str], Component]
    """Raises `NodeError` for a type that cannot run."""

    def prepare(
        self,
        *,
        loaded: Loaded,
        state: RunState,
        node_id: str,
        ledger: Ledger,
        step_rows: StepRows,
        waits: Waits,
        stamp: Callable[[], Stamp],
        started_at: datetime,
        remaining: float,
        recovered: bool,
    ) -> "AttemptTask":
        """Take from the run's state what the attempt sees: the state as it is now."""
        execution = {
            "execution_id": loaded.id,
            "workflow_id": loaded.workflow_id,
            "workflow_slug": loaded.workflow_slug,
        }
        user_context = {"user_profile_id": loaded.user_id, **(loaded.user_context or {})}
        iteration = state.iteration_of(node_id)
        view = state_view(state, node_id, execution=execution, user_context=user_context)
        return AttemptTask(
            runner=self,
            node=state.plan.nodes[node_id],
            identity=RunIdentity(
                execution_id=loaded.id,
                workflow_id=loaded.workflow_id,
                workflow_slug=loaded.workflow_slug,
                node_id=node_id,
                iteration=iteration,
                attempt=state.attempts.get(node_id, 0),
            ),
            view=view,
            place=state.place_of(node_id),
            predecessors=state.predecessors(node_id),
            attached=_attached(state.plan, node_id),
            primary_ports={
                n: primary_port(d.component_type) or "" for n, d in state.plan.nodes.items()
            },
            earlier_usage=state.attempt_usage.get(node_id, Usage()),
            checkpoint=loaded.checkpoints.get((node_id, iteration)),
            purse=self.budgets.purse(loaded.id, node_id),
            ledger=ledger,
            step_rows=step_rows,
            waits=waits,
            stamp=stamp,
            started_at=started_at,
            remaining=remaining,
            recovered=recovered,
        )


@dataclass(kw_only=True)
class AttemptTask:
    """An attempt being made. Its `run` is called once; everything else may be read any time."""

    runner: NodeRunner
    node: NodeDef
    identity: RunIdentity
    view: dict[str, Any]
    place: dict[str, Any]
    """What events say of where in its loops the node is."""
    predecessors: tuple[str, ...]
    attached: Attached
    primary_ports: dict[str, str]
    earlier_usage: Usage
    checkpoint: Any
    purse: Purse
    ledger: Ledger
    step_rows: StepRows
    waits: Waits
    stamp: Callable[[], Stamp]
    started_at: datetime
    remaining: float
    recovered: bool
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Cancels the attempt; replaced by the task's own when it is started."""
    _report: Report = field(default_factory=Report)
    _begun: float = 0.0
    _ended: float | None = None
    _time: AttemptTime | None = None
    _saves: int = 0
    _kept: int = 0

    @property
    def node_id(self) -> str:
        """The node this is an attempt of."""
        return self.node.node_id

    @property
    def key(self) -> tuple[str, str]:
        """The activation: the node and its iteration."""
        return self.node.node_id, self.identity.iteration

    def attempt(self) -> Attempt:
        """Describe the attempt as it is now, or as it ended."""
        ended = trio.current_time() if self._ended is None else self._ended
        return Attempt(
            node_id=self.node_id,
            number=self.identity.attempt,
            duration_ms=max(0, round((ended - self._begun) * 1000)),
            recovered=self.recovered,
        )

    def cut_off(self, ending: Ending, result: Outcome | Failure | None) -> Failure:
        """Return the failure of an attempt that the end of its execution cut off."""
        report = self._report if result is None else result.report
        return self._with_children(stopped_by(ending, cleaned(report)))

    async def run(self) -> Outcome | Failure:
        """Make the attempt. Every way to fail is a `Failure`; only cancellation goes through.

        What is returned can be stored, whatever the component made.
        """
        self._begun = trio.current_time()
        ids = {"node_id": self.node_id, "attempt": self.identity.attempt}
        try:
            # Every line of the component, its tools and its model calls says whose it is.
            with structlog.contextvars.bound_contextvars(**ids):
                return self._with_children(storable(await self._limited()))
        finally:
            self._ended = trio.current_time()

    async def _limited(self) -> Outcome | Failure:
        limits = limits_of(self.node)
        self._time = time = AttemptTime(limits)
        with time.wall:
            with time.idle:
                return await self._guarded()
            return self._with_report(limits.on_idle)
        return self._with_report(limits.on_wall)

    async def word_question(self) -> str | None:
        """Return the prompt of a node that asks before it runs; None if it cannot be resolved."""
        try:
            resolved = await self.runner.expressions.resolve(self.node, self._context())
        except NodeError:
            return None
        except Exception:
            # A defect: the attempt meets it too, and fails its node.
            log.exception("question not worded", node_id=self.node_id)
            return None
        extra = resolved.config.get("extra_config") or {}
        return clean_text(to_text(extra.get("prompt"))) or DEFAULT_PROMPT

    async def _guarded(self) -> Outcome | Failure:
        try:
            return await self._execute()
        except NodeError as error:
            report = error.report if error.report != Report() else self._report
            return Failure(
                code=error.code, message=str(error), retryable=error.retryable, report=report
            )
        except ProviderError as error:
            return Failure(
                code=error.code,
                message=str(error),
                retryable=error.retryable,
                report=self._report,
            )
        except Exception as error:
            # A defect of a component fails its node like user code that raises, and is logged.
            log.exception("component failed", node_id=self.node_id)
            return Failure(
                code=type(error).__name__,
                message=public_text(error),
                retryable=True,
                report=self._report,
            )

    async def _execute(self) -> Outcome:
        component = self.runner.component_of(self.node.component_type)
        context = self._context()
        resolved = await self.runner.expressions.resolve(self.node, context)
        warnings = list(resolved.warnings)
        attached = await self._resolve_attached(context, warnings)
        outcome = await component(
            NodeCall(
                identity=self.identity,
                node=self.node,
                config=resolved.config,
                state=self.view,
                predecessors=self.predecessors,
                primary_ports=self.primary_ports,
                remaining_seconds=self.remaining,
                services=self.runner.services,
                attached=attached,
                run=self,
            )
        )
        if not warnings:
            return outcome
        report = msgspec.structs.replace(
            outcome.report, warnings=(*warnings, *outcome.report.warnings)
        )
        return msgspec.structs.replace(outcome, report=report)

    async def _resolve_attached(
        self, context: Mapping[str, Any], warnings: list[dict[str, Any]]
    ) -> Attached:
        """Resolve the configs of the attached nodes; what could not be adds to *warnings*."""

        async def resolve(nodes: Sequence[WithConfig]) -> tuple[WithConfig, ...]:
            found = []
            for node, _ in nodes:
                own = await self.runner.expressions.resolve(node, context)
                warnings.extend(own.warnings)
                found.append((node, own.config))
            return tuple(found)

        given = self.attached
        parsers = await resolve([] if given.output_parser is None else [given.output_parser])
        return Attached(
            model=given.model,
            tools=await resolve(given.tools),
            skills=await resolve(given.skills),
            output_parser=parsers[0] if parsers else None,
        )

    def _context(self) -> dict[str, Any]:
        """Return the names a template sees (engine.md §20.4).

        A node hides all but `trigger` and `loop`.
        """
        outputs: dict[str, Any] = self.view["node_outputs"]
        trigger: dict[str, Any] = self.view["trigger"]
        return {
            "user_context": self.view["user_context"],
            "input": trigger.get("payload"),
            "nodes": outputs,
            "execution": {
                "id": self.identity.execution_id,
                "workflow_slug": self.identity.workflow_slug,
                "started_at": format_instant(self.started_at),
            },
            **outputs,
            "trigger": trigger,
            **({} if self.view["loop"] is None else {"loop": self.view["loop"]}),
        }

    def _with_report(self, failure: Failure) -> Failure:
        return msgspec.structs.replace(failure, report=self._report)

    def _with_children(self, result: _Ended) -> _Ended:
        if not self.waits.ids:
            return result
        report = msgspec.structs.replace(result.report, child_execution_ids=self.waits.ids)
        return msgspec.structs.replace(result, report=report)

    # The RunPort of the component.

    @property
    def progress(self) -> Any:
        """What an earlier attempt or server saved."""
        return self.checkpoint

    @property
    def recorded(self) -> Usage:
        """What earlier attempts used."""
        return self.earlier_usage

    def alive(self) -> None:
        """Move the inactivity deadline."""
        if self._time is not None:
            self._time.alive()

    def note(self, report: Report) -> None:
        """Remember what the log row will say if the attempt is cut off."""
        self._report = report

    def delta(self, text: str, index: int) -> None:
        """Publish a piece of an answer."""
        self.ledger.delta(self.node_id, clean_text(text), index)

    async def save(self, progress: Any, events: Sequence[RunEvent] = ()) -> None:
        """Commit progress with its events, as far as they can be stored.

        Raises:
            NodeError: `OutputTooLargeError`.
        """
        self._saves += 1
        number = self._saves
        progress, told = cleaned(progress), cleaned(tuple(map(self._placed, events)))
        if (size := json_size(progress)) > MAX_PROGRESS_BYTES:
            raise NodeError(
                f"Node progress too large ({size} bytes, limit {MAX_PROGRESS_BYTES})",
                code="OutputTooLargeError",
                retryable=False,
            )
        with self.purse.settling() as settled:
            step = self.step_rows.progress(
                self.key, progress, told, stamp=self.stamp(), settled=settled
            )
            await self.ledger.write(step)
        # Kept is what is stored; those that wait for one commit wake in any order.
        if number > self._kept:
            self._kept, self.checkpoint = number, progress

    def _placed(self, event: RunEvent) -> RunEvent:
        """Say of a tool call in which iteration it is made."""
        if event.type != "node_status":
            return event
        return RunEvent(event.type, {**event.data, **self.place})

    async def history(self) -> tuple[ChatMessage, ...]:
        """Return what the node remembers of its thread."""
        thread = self.step_rows.memory_thread
        found, _ = await self.runner.store.read(
            lambda conn: history(conn, thread, self.node_id, limit=MAX_MESSAGES)
        )
        return tuple(parse_message(entry.message) for entry in found)

    async def run_children(
        self, batch: ChildBatch, tell: Callable[[tuple[str, ...]], Sequence[RunEvent]]
    ) -> tuple[ChildEnd, ...]:
        """Run child executions and wait for them."""
        if self._time is None:
            raise RuntimeError("only a running attempt has children")

        def placed(ids: tuple[str, ...]) -> Sequence[RunEvent]:
            return [self._placed(event) for event in tell(ids)]

        known = {k: v for k, v in self.view["user_context"].items() if k != "user_profile_id"}
        asker = Asker(node_id=self.node_id, user_context=known)
        return await self.waits.run(asker, batch, placed, self._time)


def _attached(plan: Plan, node_id: str) -> Attached:
    """Return what is attached to a node, with no config resolved yet."""

    def find(*labels: str) -> tuple[WithConfig, ...]:
        return tuple((node, {}) for node in plan.attached(node_id, *labels))

    return Attached(
        model=plan.model_of(node_id),
        tools=find("tool", "memory"),
        skills=find("skill"),
        output_parser=next(iter(find("output_parser")), None),
    )

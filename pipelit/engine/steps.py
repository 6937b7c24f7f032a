"""What each step of a run changes: journal records, log rows, events, what starts, how it ends.

Pure: time comes in, `Changes` come out; the execution's actor commits them and starts the nodes.
Each function folds its record into the state, so the state is always the fold of what was decided.

Contract: engine.md §8.2–8.4, §9, §11, §13.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipelit.engine import journal
from pipelit.engine.changes import Attempt, Changes, Ending, Failed, Log, Question
from pipelit.engine.descendants import Descendants
from pipelit.engine.endings import completed, skip_reason, stopped_by
from pipelit.engine.instants import instant_text
from pipelit.engine.journal import RunState
from pipelit.engine.limits import SizeLimits, oversize_loop
from pipelit.engine.loops import what_next
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Failure, Outcome, Report, Usage
from pipelit.engine.output import MAX_ERROR, promoted
from pipelit.engine.questions import When
from pipelit.engine.records import (
    Answered,
    Asked,
    AttemptFailed,
    Begun,
    Iterating,
    Looped,
    NodeFailed,
    NodeSucceeded,
    Record,
    Started,
    Waiting,
)
from pipelit.engine.routing import is_handled
from pipelit.engine.takeover import Takeover, describe
from pipelit.engine.telling import Telling

_BARE = Report()


class Narrator:
    """Turns what happened to the nodes of one run into `Changes`."""

    def __init__(
        self,
        execution_id: str,
        workflow_id: int,
        workflow_slug: str,
        state: RunState,
        *,
        max_parallel: int,
        size_limits: SizeLimits = SizeLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._execution_id = execution_id
        self._workflow_id = workflow_id
        self._slug = workflow_slug
        self.state = state
        self._max_parallel = max_parallel
        self._size_limits = size_limits
        self._held = False
        self.descendants = Descendants()
        self.suspended: set[str] = set()  # these wait for child executions: they take no slot

    def hold(self) -> None:
        """Start nothing more: what becomes ready stays `pending` for whoever takes the run up."""
        self._held = True

    def begin(
        self,
        trigger: dict[str, Any],
        messages: tuple[ChatMessage, ...],
        *,
        payload: Any,
        problems: tuple[str, ...],
        now: float,
        takeover: Takeover | None = None,
    ) -> Changes:
        """Start the run: the trigger's log row and the first nodes, or its validation failure.

        A retry begins with what it takes over; that may be all there is to do.
        """
        telling = self._telling()
        telling.event("execution_started", {"workflow_id": self._workflow_id})
        if (node := self.state.plan.snapshot.trigger_node_id) is not None:
            telling.logs.append(Log(node_id=node, status="success", output=payload))
        record = Begun(trigger=trigger, messages=messages)
        if problems or not self.state.plan.snapshot.walked:
            text = "; ".join(problems) or f"Workflow '{self._slug}' has no executable nodes"
            ending = Ending(
                status="failed", error_message=text[:MAX_ERROR], error_code="ValidationError"
            )
            telling.ended(ending, self.descendants, duration_ms=0)
            return _changes((record,), telling, ending=ending)
        step = self.state.apply(record)
        if takeover is None:
            return self._follow([record], step, telling, now=now)
        telling.skipped(step.skipped)
        for taken in takeover.records:
            if (described := describe(taken, takeover.source)) is not None:
                telling.taken_over(*described)
            telling.skipped(self.state.apply(taken).skipped)
        telling.pending(self.state.ready)
        for loop in self.state.loops:
            telling.running([loop])
            telling.iterating(loop)
        return self._follow([record, *takeover.records], journal.Step(), telling, now=now)

    def succeed(
        self, attempt: Attempt, outcome: Outcome, *, now: float, elapsed_ms: int
    ) -> Changes:
        """A node succeeded: its result, what it leads to, and the end of the run if it was last.

        A loop that has its items begins to iterate.

        Args:
            attempt: the attempt that ended.
            outcome: what it gave.
            now: Unix seconds.
            elapsed_ms: since the run started.
        """
        telling = self._telling()
        record: Looped | NodeSucceeded
        if outcome.loop_items is None:
            record = self._succeeded(attempt, outcome, telling, now=now)
        else:
            record = Looped(
                node_id=attempt.node_id,
                iteration=self.state.iteration_of(attempt.node_id),
                outcome=outcome,
                at=now - attempt.duration_ms / 1000,
                attempt=attempt.number,
                recovered=attempt.recovered,
            )
        step = self.state.apply(record)
        return self._follow([record], step, telling, now=now, elapsed_ms=elapsed_ms)

    def _succeeded(
        self, attempt: Attempt, outcome: Outcome, telling: Telling, *, now: float
    ) -> NodeSucceeded:
        outcome = promoted(self.state.plan, attempt.node_id, outcome, self.state)
        telling.succeeded(attempt, outcome)
        return NodeSucceeded(
            node_id=attempt.node_id,
            iteration=self.state.iteration_of(attempt.node_id),
            # The log row has the report, the thread what is to be remembered.
            outcome=msgspec.structs.replace(outcome, report=_BARE, remember=()),
            at=now,
            duration_ms=attempt.duration_ms,
            usage=outcome.report.usage or Usage(),
        )

    def ask(self, question: Question, *, now: float) -> Changes:
        """A person is asked before a node runs, or after it before its successors do."""
        when: When = "after" if question.kind == "interrupt_after" else "before"
        record = Asked(
            node_id=question.node_id,
            iteration=question.iteration,
            task_id=question.task_id,
            when=when,
        )
        self.state.apply(record)
        telling = self._telling()
        telling.asked(question)
        changes = self._follow([record], journal.Step(), telling, now=now, may_end=False)
        return msgspec.structs.replace(changes, questions=(question,))

    def answer(self, asked: Asked, text: str, *, now: float, elapsed_ms: int) -> Changes:
        """An answer lets a branch go on."""
        record = Answered(
            node_id=asked.node_id,
            iteration=asked.iteration,
            task_id=asked.task_id,
            when=asked.when,
            text=text,
        )
        step = self.state.apply(record)
        return self._follow([record], step, self._telling(), now=now, elapsed_ms=elapsed_ms)

    def start_unasked(self, node_id: str) -> Changes:
        """A question cannot be put into words: its node runs, and fails, of the same cause."""
        record = Started(nodes=(node_id,))
        self.state.apply(record)
        telling = self._telling()
        telling.running(record.nodes)
        return _changes((record,), telling, started=record.nodes)

    def pause(self) -> Changes:
        """Nothing goes on before a person answers, if that is so."""
        return Changes(interrupted=self.state.is_blocked)

    def wait(self, attempt: Attempt, outcome: Outcome, *, resume_at: float, now: float) -> Changes:
        """A node has done its part and waits until *resume_at* (Unix seconds)."""
        record = Waiting(
            node_id=attempt.node_id,
            iteration=self.state.iteration_of(attempt.node_id),
            resume_at=resume_at,
            outcome=outcome,
            attempt=attempt.number,
            duration_ms=attempt.duration_ms,
        )
        self.state.apply(record)
        telling = self._telling()
        telling.status(attempt.node_id, "waiting", resume_at=instant_text(resume_at))
        return self._follow([record], journal.Step(), telling, now=now, may_end=False)

    def retry_later(
        self, attempt: Attempt, failure: Failure, *, delay: float, now: float
    ) -> Changes:
        """An attempt failed and is tried again in *delay* seconds."""
        record = AttemptFailed(
            node_id=attempt.node_id,
            iteration=self.state.iteration_of(attempt.node_id),
            attempt=attempt.number,
            retry_at=now + delay,
            usage=failure.report.usage or Usage(),
        )
        telling = self._telling()
        telling.failed(attempt, failure, retry_in=delay)
        self.state.apply(record)
        return self._follow([record], journal.Step(), telling, now=now, may_end=False)

    def handle_failure(
        self, attempt: Attempt, failure: Failure, *, now: float, elapsed_ms: int
    ) -> Changes:
        """A node failed for good, and an error handler or a loop takes over."""
        telling = self._telling()
        record = self._failed(attempt, failure, telling, now=now)
        step = self.state.apply(record)
        return self._follow([record], step, telling, now=now, elapsed_ms=elapsed_ms)

    def _failed(
        self, attempt: Attempt, failure: Failure, telling: Telling, *, now: float
    ) -> NodeFailed:
        telling.failed(attempt, failure)
        return NodeFailed(
            node_id=attempt.node_id,
            iteration=self.state.iteration_of(attempt.node_id),
            code=failure.code,
            message=failure.message,
            attempts=attempt.number + 1,
            at=now,
            duration_ms=attempt.duration_ms,
            usage=failure.report.usage or Usage(),
        )

    def start_ready(self, *, now: float) -> Changes:
        """Start what may run and has a slot: after a retry delay, or after a recovery."""
        changes = self._follow([], journal.Step(), self._telling(), now=now, may_end=False)
        return changes if changes.records or changes.broken else Changes()

    def end(
        self,
        ending: Ending,
        stopped: Mapping[str, tuple[Attempt, Failure]],
        *,
        now: float,
        elapsed_ms: int,
        last: tuple[Attempt, Outcome] | None = None,
    ) -> Changes:
        """End the run before its time: every node without a result gets one (engine.md §11.3).

        Args:
            ending: how; its `failed_node` is in *stopped* with its own failure.
            stopped: {node: (attempt, failure)} of the attempts cut off, in the order they ran.
                Whatever else was announced, and has no result, is stopped too.
            now: Unix seconds.
            elapsed_ms: since the run started.
            last: the success that ends the run: a rejection.
        """
        telling = self._telling()
        records: tuple[Record, ...] = ()
        if last is not None:
            record = self._succeeded(*last, telling, now=now)
            records = (record,)
            telling.skipped(self.state.apply(record).skipped)
        stopped = {**stopped, **self._cut_off(ending, stopped)}
        for attempt, failure in stopped.values():
            self.state.usage += failure.report.usage or Usage()
            telling.failed(attempt, failure)
        left = (node for node in self.state.unresolved() if node not in stopped)
        telling.skipped((node, skip_reason(self.state.plan, node, ending)) for node in left)
        telling.ended(ending, self.descendants, duration_ms=elapsed_ms)
        return _changes(records, telling, ending=ending)

    def _cut_off(
        self, ending: Ending, known: Mapping[str, Any]
    ) -> dict[str, tuple[Attempt, Failure]]:
        """Return the attempts that wait, or were cut off together with an earlier server."""
        state = self.state
        found = {}
        for node in state.unfinished():
            if node not in known:
                spent = state.waiting[node].duration_ms if node in state.waiting else 0
                number = state.attempts.get(node, 0)
                attempt = Attempt(node_id=node, number=number, duration_ms=spent)
                found[node] = (attempt, stopped_by(ending))
        return found

    def _follow(
        self,
        records: list[Record],
        step: journal.Step,
        telling: Telling,
        *,
        now: float,
        elapsed_ms: int = 0,
        may_end: bool = True,
    ) -> Changes:
        """Add to what happened what it leads to: loops that go on, slots that are free."""
        self._tell(step, telling)
        broken = None
        for happened in self._go_round(telling, now):
            if isinstance(happened, Failed):
                broken = happened
            else:
                records.append(happened)
        started = () if broken is not None else self._startable(now)
        if started:
            self.state.apply(Started(nodes=started))
            telling.running(started)
            if records and hasattr(records[-1], "started"):
                records[-1] = msgspec.structs.replace(records[-1], started=started)
            else:
                records.append(Started(nodes=started))
        ending = None
        if may_end and self.state.is_done:
            ending = completed(self.state)
            telling.ended(ending, self.descendants, duration_ms=elapsed_ms)
        return _changes(
            tuple(records),
            telling,
            started=started,
            interrupted=self.state.is_blocked,
            broken=broken,
            ending=ending,
        )

    def _go_round(self, telling: Telling, now: float) -> Iterator[Record | Failed]:
        """Let loops whose iteration is over go on; one that cannot, and is not handled, is last."""
        state = self.state
        while state.settled:
            loop = next(iter(state.settled))
            run = state.loops[loop]
            attempt = Attempt(
                node_id=loop,
                number=run.looped.attempt,
                duration_ms=max(0, round((now - run.looped.at) * 1000)),
                recovered=run.looped.recovered,
            )
            found = what_next(state.plan, run)
            if isinstance(found, Outcome):
                found = oversize_loop(found, run, state, self._size_limits) or found
            record: Iterating | NodeSucceeded | NodeFailed
            match found:
                case Iterating():
                    record = found
                case Outcome():
                    record = self._succeeded(attempt, found, telling, now=now)
                case Failure() if is_handled(state.plan, loop):
                    record = self._failed(attempt, found, telling, now=now)
                case Failure():
                    yield Failed(attempt, found)
                    return
            step = state.apply(record)
            if isinstance(record, Iterating):
                telling.iterating(loop)
            self._tell(step, telling)
            yield record

    def _tell(self, step: journal.Step, telling: Telling) -> None:
        telling.skipped(step.skipped)
        telling.pending(step.ready)

    def _telling(self) -> Telling:
        return Telling(self._execution_id, self.state)

    def _startable(self, now: float) -> tuple[str, ...]:
        state = self.state
        free = (
            0 if self._held else max(0, self._max_parallel - len(state.in_flight - self.suspended))
        )
        waiting = (
            node
            for node in state.ready
            if node not in state.started
            and state.retry_at.get(node, now) <= now
            and not state.must_ask(node)
        )
        return tuple(node for node, _ in zip(waiting, range(free), strict=False))


def _changes(records: tuple[Record, ...], telling: Telling, **more: Any) -> Changes:
    return Changes(records=records, events=tuple(telling.events), logs=tuple(telling.logs), **more)

"""What each step of a run changes: journal records, log rows, events, what starts, how it ends.

Pure: time comes in, `Changes` come out; the execution's actor commits them and starts the nodes.
Each function folds its record into the state, so the state is always the fold of what was decided.

Contract: engine.md §8.2–8.4, §9, §11.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pipelit.engine import journal, wire
from pipelit.engine.changes import Attempt, Changes, Ending, Event, Log, Question
from pipelit.engine.descendants import Descendants
from pipelit.engine.endings import stopped_by
from pipelit.engine.journal import RunState
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Failure, Outcome, Report, Usage
from pipelit.engine.output import MAX_ERROR, final_output, promoted, visible_ports
from pipelit.engine.questions import When
from pipelit.engine.records import (
    Answered,
    Asked,
    AttemptFailed,
    Begun,
    NodeFailed,
    NodeSucceeded,
    Record,
    Started,
    Waiting,
)
from pipelit.engine.takeover import Takeover, describe


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
    ) -> None:
        self._execution_id = execution_id
        self._workflow_id = workflow_id
        self._slug = workflow_slug
        self.state = state
        self._max_parallel = max_parallel
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
        events = [
            Event(
                "execution_started",
                {"execution_id": self._execution_id, "workflow_id": self._workflow_id},
            )
        ]
        logs: tuple[Log, ...] = ()
        if (node := self.state.plan.snapshot.trigger_node_id) is not None:
            logs = (Log(node_id=node, status="success", output=payload),)
        record = Begun(trigger=trigger, messages=messages)
        if problems or not self.state.plan.snapshot.walked:
            text = "; ".join(problems) or f"Workflow '{self._slug}' has no executable nodes"
            ending = Ending(
                status="failed", error_message=text[:MAX_ERROR], error_code="ValidationError"
            )
            events.append(self._terminal(ending, duration_ms=0))
            return Changes(records=(record,), events=tuple(events), logs=logs, ending=ending)
        step = self.state.apply(record)
        if takeover is None:
            return self._follow(record, step, events, logs, now=now)
        rows, skipped = list(logs), list(step.skipped)
        for taken in takeover.records:
            skipped += self.state.apply(taken).skipped
            if (described := describe(taken, takeover.source)) is not None:
                log, fields = described
                rows.append(log)
                events.append(Event("node_status", self._status(log.node_id, log.status, **fields)))
        step = journal.Step(ready=tuple(self.state.ready), skipped=tuple(skipped))
        changes = self._follow(record, step, events, tuple(rows), now=now)
        first, *more = changes.records
        return msgspec.structs.replace(changes, records=(first, *takeover.records, *more))

    def succeed(
        self, attempt: Attempt, outcome: Outcome, *, now: float, elapsed_ms: int
    ) -> Changes:
        """A node succeeded: its result, what it leads to, and the end of the run if it was last.

        Args:
            attempt: the attempt that ended.
            outcome: what it gave.
            now: Unix seconds.
            elapsed_ms: since the run started.
        """
        record, events, log = self._succeeded(attempt, outcome)
        step = self.state.apply(record)
        return self._follow(record, step, events, (log,), now=now, elapsed_ms=elapsed_ms)

    def _succeeded(
        self, attempt: Attempt, outcome: Outcome
    ) -> tuple[NodeSucceeded, list[Event], Log]:
        node = self.state.plan.nodes[attempt.node_id]
        outcome = promoted(self.state.plan, attempt.node_id, outcome, self.state)
        report = outcome.report
        fields = wire.succeeded_fields(outcome.ports, report.usage, attempt.duration_ms)
        events = [Event("node_status", self._status(attempt.node_id, "success", **fields))]
        if outcome.spoken:
            said = {
                "execution_id": self._execution_id,
                "node_id": node.node_id,
                "text": outcome.spoken,
            }
            events.insert(0, Event("chat_message", said))
        log = Log(
            node_id=node.node_id,
            status="success",
            input=report.input,
            output=visible_ports(outcome.ports),
            metadata=wire.log_metadata(report, attempt=attempt.number, recovered=attempt.recovered),
            duration_ms=attempt.duration_ms,
        )
        record = NodeSucceeded(
            node_id=node.node_id,
            outcome=msgspec.structs.replace(outcome, report=Report()),
            usage=report.usage or Usage(),
        )
        return record, events, log

    def ask(self, question: Question, *, now: float) -> Changes:
        """A person is asked before a node runs, or after it before its successors do."""
        when: When = "after" if question.kind == "interrupt_after" else "before"
        record = Asked(node_id=question.node_id, task_id=question.task_id, when=when)
        self.state.apply(record)
        events = [
            Event("execution_interrupted", wire.question_fields(self._execution_id, question))
        ]
        if when == "before":
            waiting = self._status(question.node_id, "waiting", task_id=question.task_id)
            events.insert(0, Event("node_status", waiting))
        changes = self._follow(record, journal.Step(), events, (), now=now, may_end=False)
        return msgspec.structs.replace(changes, questions=(question,))

    def answer(self, asked: Asked, text: str, *, now: float, elapsed_ms: int) -> Changes:
        """An answer lets a branch go on."""
        record = Answered(node_id=asked.node_id, task_id=asked.task_id, when=asked.when, text=text)
        step = self.state.apply(record)
        return self._follow(record, step, [], (), now=now, elapsed_ms=elapsed_ms)

    def start_unasked(self, node_id: str) -> Changes:
        """A question cannot be put into words: its node runs, and fails, of the same cause."""
        record = Started(nodes=(node_id,))
        self.state.apply(record)
        return Changes(records=(record,), events=self._running((node_id,)), started=(node_id,))

    def pause(self) -> Changes:
        """Nothing goes on before a person answers, if that is so."""
        return Changes(interrupted=self.state.is_blocked)

    def wait(self, attempt: Attempt, outcome: Outcome, *, resume_at: float, now: float) -> Changes:
        """A node has done its part and waits until *resume_at* (Unix seconds)."""
        record = Waiting(
            node_id=attempt.node_id,
            resume_at=resume_at,
            outcome=outcome,
            attempt=attempt.number,
            duration_ms=attempt.duration_ms,
        )
        self.state.apply(record)
        at = wire.instant_text(resume_at)
        event = Event("node_status", self._status(attempt.node_id, "waiting", resume_at=at))
        return self._follow(record, journal.Step(), [event], (), now=now, may_end=False)

    def retry_later(
        self, attempt: Attempt, failure: Failure, *, delay: float, now: float
    ) -> Changes:
        """An attempt failed and is tried again in *delay* seconds."""
        record = AttemptFailed(
            node_id=attempt.node_id,
            attempt=attempt.number,
            retry_at=now + delay,
            usage=failure.report.usage or Usage(),
        )
        self.state.apply(record)
        event, log = self._failed(attempt, failure, retry_in=delay)
        return self._follow(record, journal.Step(), [event], (log,), now=now, may_end=False)

    def handle_failure(
        self, attempt: Attempt, failure: Failure, *, now: float, elapsed_ms: int
    ) -> Changes:
        """A node failed for good and an error handler takes over."""
        record = NodeFailed(
            node_id=attempt.node_id,
            code=failure.code,
            message=failure.message,
            attempts=attempt.number + 1,
            at=now,
            usage=failure.report.usage or Usage(),
        )
        event, log = self._failed(attempt, failure, retry_in=None)
        step = self.state.apply(record)
        return self._follow(record, step, [event], (log,), now=now, elapsed_ms=elapsed_ms)

    def start_ready(self, *, now: float) -> Changes:
        """Start what may run and has a slot: after a retry delay, or after a recovery."""
        started = self._startable(now)
        if not started:
            return Changes()
        record = Started(nodes=started)
        self.state.apply(record)
        return Changes(records=(record,), events=self._running(started), started=started)

    def end(
        self,
        ending: Ending,
        stopped: Mapping[str, tuple[Attempt, Failure]],
        *,
        elapsed_ms: int,
        last: tuple[Attempt, Outcome] | None = None,
    ) -> Changes:
        """End the run before its time: every node without a result gets one (engine.md §11.3).

        Args:
            ending: how; its `failed_node` is in *stopped* with its own failure.
            stopped: {node: (attempt, failure)} of the attempts cut off, in the order they ran.
                Whatever else was announced, and has no result, is stopped too.
            elapsed_ms: since the run started.
            last: the success that ends the run: a rejection.
        """
        events: list[Event] = []
        logs: list[Log] = []
        records: tuple[Record, ...] = ()
        if last is not None:
            record, events, log = self._succeeded(*last)
            logs, records = [log], (record,)
            self._pass_by(self.state.apply(record).skipped, events, logs)
        stopped = {**stopped, **self._cut_off(ending, stopped)}
        for attempt, failure in stopped.values():
            self.state.usage += failure.report.usage or Usage()
            event, log = self._failed(attempt, failure, retry_in=None)
            events.append(event)
            logs.append(log)
        for node in self.state.unresolved():
            if node not in stopped:
                self._pass_by([(node, self._skip_reason(node, ending))], events, logs)
        events.append(self._terminal(ending, duration_ms=elapsed_ms))
        return Changes(records=records, events=tuple(events), logs=tuple(logs), ending=ending)

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
        record: Any,
        step: journal.Step,
        events: list[Event],
        logs: tuple[Log, ...],
        *,
        now: float,
        elapsed_ms: int = 0,
        may_end: bool = True,
    ) -> Changes:
        """Add to a record's own changes what it leads to: also a slot that it frees is used."""
        rows = list(logs)
        self._pass_by(step.skipped, events, rows)
        events.extend(Event("node_status", self._status(n, "pending")) for n in step.ready)
        records: tuple[Any, ...] = (record,)
        started = self._startable(now)
        if started:
            if hasattr(record, "started"):
                records = (msgspec.structs.replace(record, started=started),)
            else:
                records = (record, Started(nodes=started))
            self.state.apply(Started(nodes=started))
            events.extend(self._running(started))
        ending = None
        if may_end and self.state.is_done:
            ending = Ending(status="completed", final_output=final_output(self.state))
            events.append(self._terminal(ending, duration_ms=elapsed_ms))
        return Changes(
            records=records,
            events=tuple(events),
            logs=tuple(rows),
            started=started,
            interrupted=self.state.is_blocked,
            ending=ending,
        )

    def _pass_by(
        self, skipped: Iterable[tuple[str, str]], events: list[Event], logs: list[Log]
    ) -> None:
        """Add what is told of nodes that are skipped, for a reason each."""
        for node, reason in skipped:
            events.append(Event("node_status", self._status(node, "skipped", reason=reason)))
            logs.append(Log(node_id=node, status="skipped", metadata={"skip_reason": reason}))

    def _startable(self, now: float) -> tuple[str, ...]:
        state = self.state
        running = len(state.started - state.waiting.keys() - self.suspended)
        free = 0 if self._held else max(0, self._max_parallel - running)
        waiting = (
            node
            for node in state.ready
            if node not in state.started
            and state.retry_at.get(node, now) <= now
            and not state.must_ask(node)
        )
        return tuple(node for node, _ in zip(waiting, range(free), strict=False))

    def _running(self, nodes: Iterable[str]) -> tuple[Event, ...]:
        return tuple(
            Event(
                "node_status",
                self._status(node, "running", attempt=self.state.attempts.get(node)),
            )
            for node in nodes
        )

    def _failed(
        self, attempt: Attempt, failure: Failure, *, retry_in: float | None
    ) -> tuple[Event, Log]:
        fields = wire.failed_fields(
            failure, attempt=attempt.number, duration_ms=attempt.duration_ms, retry_in=retry_in
        )
        report = failure.report
        log = Log(
            node_id=attempt.node_id,
            status="failed",
            input=report.input,
            error=failure.message[:MAX_ERROR],
            error_code=failure.code,
            metadata=wire.log_metadata(report, attempt=attempt.number, recovered=attempt.recovered),
            duration_ms=attempt.duration_ms,
        )
        return Event("node_status", self._status(attempt.node_id, "failed", **fields)), log

    def _status(self, node_id: str, status: str, **fields: Any) -> dict[str, Any]:
        node = self.state.plan.nodes[node_id]
        return wire.node_status(self._execution_id, node, status, **fields)

    def _skip_reason(self, node: str, ending: Ending) -> str:
        if ending.status == "cancelled":
            return "execution cancelled"
        if ending.failed_node and node in self.state.plan.downstream(ending.failed_node):
            return "Upstream node failed"
        return "execution failed"

    def _terminal(self, ending: Ending, *, duration_ms: int) -> Event:
        data: dict[str, Any] = {"execution_id": self._execution_id}
        if ending.status == "completed":
            ended = [r for r in self.state.results.values() if r.ending != "skipped"]
            data |= wire.completed_fields(
                ending,
                wire.activity_summary(
                    total_steps=len(ended),
                    total_duration_ms=duration_ms,
                    usage=self.state.usage,
                    descendants=self.descendants,
                ),
            )
        elif ending.status == "failed":
            data |= wire.end_failed_fields(ending)
        return Event(f"execution_{ending.status}", data)

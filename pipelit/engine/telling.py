"""What is told of a run: its events and log rows. Contract: engine.md §8.4, §9."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelit.engine import wire
from pipelit.engine.changes import Attempt, Ending, Event, Log, Question
from pipelit.engine.descendants import Descendants
from pipelit.engine.journal import RunState
from pipelit.engine.outcome import Failure, Outcome, Report
from pipelit.engine.output import MAX_ERROR, visible_ports


class Telling:
    """Collects what one step tells, in order. Where a node is, is what the state says then."""

    def __init__(self, execution_id: str, state: RunState) -> None:
        self._execution_id = execution_id
        self._state = state
        self.events: list[Event] = []
        self.logs: list[Log] = []

    def event(self, type_: str, data: Mapping[str, Any]) -> None:
        """Tell something of the whole execution."""
        self.events.append(Event(type_, {"execution_id": self._execution_id, **data}))

    def status(self, node_id: str, status: str, **fields: Any) -> None:
        """Tell of a node; fields that are None are left out."""
        node = self._state.plan.nodes[node_id]
        fields = {**self._state.place_of(node_id), **fields}
        data = wire.node_status(self._execution_id, node, status, **fields)
        self.events.append(Event("node_status", data))

    def pending(self, nodes: Iterable[str]) -> None:
        """Nodes are queued."""
        for node in nodes:
            self.status(node, "pending")

    def running(self, nodes: Iterable[str]) -> None:
        """Attempts start."""
        for node in nodes:
            self.status(node, "running", attempt=self._state.attempts.get(node))

    def iterating(self, loop: str) -> None:
        """An iteration of a loop starts."""
        self.status(loop, "running", loop=self._state.loops[loop].view)

    def skipped(self, nodes: Iterable[tuple[str, str]]) -> None:
        """Nodes are passed by, for a reason each."""
        for node, reason in nodes:
            self.status(node, "skipped", reason=reason)
            metadata = {"skip_reason": reason, **self._iteration(node)}
            self.logs.append(Log(node_id=node, status="skipped", metadata=metadata))

    def asked(self, question: Question) -> None:
        """A person is asked; a node that has run already does not wait for the answer."""
        if question.kind != "interrupt_after":
            self.status(question.node_id, "waiting", task_id=question.task_id)
        self.event("execution_interrupted", wire.question_fields(self._execution_id, question))

    def succeeded(self, attempt: Attempt, outcome: Outcome) -> None:
        """A node has its result."""
        node_id, report = attempt.node_id, outcome.report
        if outcome.spoken:
            self.event("chat_message", {"node_id": node_id, "text": outcome.spoken})
        fields = wire.succeeded_fields(outcome.ports, report.usage, attempt.duration_ms)
        self.status(node_id, "success", **fields)
        self.logs.append(
            Log(
                node_id=node_id,
                status="success",
                input=report.input,
                output=visible_ports(outcome.ports),
                metadata=self._metadata(attempt, report),
                duration_ms=attempt.duration_ms,
            )
        )

    def failed(self, attempt: Attempt, failure: Failure, *, retry_in: float | None = None) -> None:
        """An attempt failed. `retry_in`: seconds; None when it is final."""
        fields = wire.failed_fields(
            failure, attempt=attempt.number, duration_ms=attempt.duration_ms, retry_in=retry_in
        )
        self.status(attempt.node_id, "failed", **fields)
        self.logs.append(
            Log(
                node_id=attempt.node_id,
                status="failed",
                input=failure.report.input,
                error=failure.message[:MAX_ERROR],
                error_code=failure.code,
                metadata=self._metadata(attempt, failure.report),
                duration_ms=attempt.duration_ms,
            )
        )

    def taken_over(self, log: Log, fields: Mapping[str, Any]) -> None:
        """A node's result was copied from the run before."""
        metadata = {**log.metadata, **self._iteration(log.node_id)}
        self.status(log.node_id, log.status, **fields)
        self.logs.append(
            Log(
                node_id=log.node_id,
                status=log.status,
                output=log.output,
                error=log.error,
                error_code=log.error_code,
                metadata=metadata,
            )
        )

    def ended(self, ending: Ending, descendants: Descendants, *, duration_ms: int) -> None:
        """The run is over."""
        data: dict[str, Any] = {}
        if ending.status == "completed":
            summary = wire.activity_summary(
                total_steps=len(self._state.steps),
                total_duration_ms=duration_ms,
                usage=self._state.usage,
                descendants=descendants,
            )
            data = wire.completed_fields(ending, summary)
        elif ending.status == "failed":
            data = wire.end_failed_fields(ending)
        self.event(f"execution_{ending.status}", data)

    def _iteration(self, node_id: str) -> dict[str, Any]:
        place = self._state.place_of(node_id)
        return {"iteration": place["iteration"]} if place else {}

    def _metadata(self, attempt: Attempt, report: Report) -> Any:
        said = wire.log_metadata(report, attempt=attempt.number, recovered=attempt.recovered)
        return {**(said or {}), **self._iteration(attempt.node_id)} or None

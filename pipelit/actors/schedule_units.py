"""What a scheduled job writes: its ticks and outcomes, each one unit.

A unit reads the job first. If it is not what the actor believed, nothing is written and the actor
gets the row as it is. Contract: schedules.md "Tick and outcome", engine.md §26.4.
"""

from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection

from pipelit.clock import format_instant
from pipelit.engine import schedule as rules
from pipelit.engine.schedule import Outcome
from pipelit.engine.trigger import schedule_trigger
from pipelit.store.queries import executions, users
from pipelit.store.queries import schedules as queries
from pipelit.store.queries.executions import NewExecution
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.nodes import list_triggers
from pipelit.store.queries.schedules import ScheduleRow
from pipelit.store.queries.workflows import WorkflowRow, find_workflow_by_id


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """A due time and what its execution would be made of.

    `until`: the end of the missed times that are being made up for, if any.
    """

    job_id: str
    nominal_time: datetime
    until: datetime | None
    owner: Owner
    now: datetime
    execution_id: str
    thread_id: str
    default_limit: int


class Ticked(msgspec.Struct, frozen=True, kw_only=True):
    """The job after a tick; None if it is gone.

    `outcome`: what came of the due time; None: nothing yet, or it was not due any more.
    `waits`: a missed time has to wait for a run to end.
    """

    job: ScheduleRow | None
    outcome: Literal["started", "failed", "skipped"] | None = None
    waits: bool = False

    @property
    def started(self) -> bool:
        """An execution was created."""
        return self.outcome == "started"


def look(conn: Connection, job_id: str) -> tuple[ScheduleRow | None, list[queries.Run]]:
    """Return a job and its runs whose outcome is not recorded yet."""
    return queries.find(conn, job_id), queries.open_runs(conn, job_id)


def tick(conn: Connection, tick: Tick) -> Ticked:
    """Start the job's execution, record a failed run, or let the time pass."""
    job = queries.find_to_change(conn, tick.job_id)
    if job is None or job.next_run_at != tick.nominal_time or not job.belongs_to(tick.owner):
        return Ticked(job=job)
    workflow = find_workflow_by_id(conn, job.workflow_id)
    if queries.is_running(conn, job.id):
        # A missed time waits for its turn, but one that comes up meanwhile is skipped.
        return Ticked(job=job, waits=True) if _catches_up(job, tick) else _skip(conn, job, tick)
    if workflow is not None and not workflow.is_active:
        return _skip(conn, job, tick)
    if queries.has_fired(conn, job.id, job.due_at):
        return _skip(conn, job, tick)
    return _fire(conn, job, workflow, tick)


def _catches_up(job: ScheduleRow, tick: Tick) -> bool:
    return job.catch_up == "all" and tick.until is not None


def _skip(conn: Connection, job: ScheduleRow, tick: Tick) -> Ticked:
    return Ticked(job=_save(conn, rules.skip(job, now=tick.now), now=tick.now), outcome="skipped")


def _fire(conn: Connection, job: ScheduleRow, workflow: WorkflowRow | None, tick: Tick) -> Ticked:
    fired = rules.fire(job, now=tick.now, until=tick.until)
    start = _prepare(conn, job, workflow, tick)
    if isinstance(start, NewExecution):
        queries.add_fire(conn, job, execution_id=start.id, now=tick.now)
        executions.create(conn, start)
        return Ticked(job=_save(conn, fired, now=tick.now), outcome="started")
    queries.add_fire(conn, job, execution_id=None, outcome="failed", now=tick.now)
    makes_up = tick.until is not None and fired.due_at <= tick.until
    failed = rules.settle(fired, "failed", start, now=tick.now, makes_up=makes_up)
    return Ticked(job=_save(conn, failed, now=tick.now), outcome="failed")


def _prepare(
    conn: Connection, job: ScheduleRow, workflow: WorkflowRow | None, tick: Tick
) -> NewExecution | str:
    """Return the execution to create, or why there can be none."""
    triggers = [] if workflow is None else list_triggers(conn, workflow.id)
    trigger = rules.choose_trigger(triggers, job.trigger_node_id, job.id)
    if workflow is None or trigger is None:
        return f"No matching trigger found for scheduled job {job.id}"
    user = None if job.user_id is None else users.find_user(conn, job.user_id)
    if user is None or not user.is_active:
        return f"User {job.user_id} not found for scheduled job {job.id}"
    payload = {
        "scheduled_job_id": job.id,
        "scheduled_job_name": job.name,
        "repeat_number": job.current_repeat,
        "timestamp": format_instant(tick.now),
        "nominal_time": format_instant(tick.nominal_time),
        "payload": job.trigger_payload or {},
    }
    return NewExecution(
        id=tick.execution_id,
        workflow_id=workflow.id,
        trigger_node_id=trigger.node_id,
        user_id=user.id,
        thread_id=tick.thread_id,
        serial=False,
        source="schedule",
        trigger_payload=payload,
        trigger=schedule_trigger(payload),
        limit_seconds=min(
            job.timeout_seconds, workflow.max_execution_seconds or tick.default_limit
        ),
        created_at=tick.now,
        schedule_id=job.id,
    )


def settle(
    conn: Connection, job_id: str, execution_id: str, *, now: datetime, makes_up: bool
) -> ScheduleRow | None:
    """Record the outcome of a run that has ended, once; return the job, None if it is gone.

    A run whose execution was deleted counts as cancelled: only ended ones can be deleted, and
    deleting ends the others.
    """
    job = queries.find_to_change(conn, job_id)
    run = executions.find(conn, execution_id)
    outcome: Outcome
    match None if run is None else run.status:
        case "completed":
            outcome = "completed"
        case "failed":
            outcome = "failed"
        case "cancelled" | None:
            outcome = "cancelled"
        case _:
            return job
    if job is None or not queries.close_fire(conn, job_id, execution_id, outcome):
        return job
    error = "" if run is None else run.error_message
    settled = rules.settle(job, outcome, error, now=now, makes_up=makes_up)
    return _save(conn, settled, now=now)


def reschedule(conn: Connection, old: ScheduleRow, next_run_at: datetime) -> ScheduleRow | None:
    """Pass over missed times of an active job; return it as it is now, None if it is gone."""
    job = queries.find_to_change(conn, old.id)
    if job is None or job.next_run_at != old.next_run_at:
        return job
    moved = msgspec.structs.replace(job, next_run_at=next_run_at)
    queries.save(conn, moved)
    return moved


def take_over(conn: Connection, owner: Owner, *, overdue: datetime) -> list[queries.Stray]:
    """Claim what no live server runs; return the jobs that need their actor now."""
    strays = queries.find_strays(conn, owner, overdue=overdue)
    queries.claim(conn, [stray.id for stray in strays if stray.lost], owner)
    return strays


def _save(conn: Connection, job: ScheduleRow, *, now: datetime) -> ScheduleRow:
    saved = msgspec.structs.replace(job, updated_at=now)
    queries.save(conn, saved)
    return saved

"""Scheduled jobs and their ticks. Contract: schedules.md, engine.md §26.

A job's row is the truth about it: every write is one unit that reads the row first, so an actor
that knows less than the database changes nothing.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from pipelit.engine.schedule import Job, Outcome
from pipelit.store.queries.executions import TERMINAL
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.servers import live_server
from pipelit.store.schema import executions, schedule_fires, schedules, workflows


class ScheduleRow(Job, frozen=True, kw_only=True):
    """A job as stored, with who may see it and which server runs it."""

    id: str
    name: str
    description: str
    workflow_id: int
    trigger_node_id: str | None
    user_id: int | None
    timeout_seconds: int
    trigger_payload: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    owner: str | None
    epoch: int | None

    def belongs_to(self, owner: Owner) -> bool:
        """Whether *owner* is the server that runs the job."""
        return (self.owner, self.epoch) == (owner.node_id, owner.epoch)


_COLUMNS = tuple(schedules.c[name] for name in ScheduleRow.__struct_fields__)


def find(conn: Connection, schedule_id: str) -> ScheduleRow | None:
    """Return one job."""
    return _first(conn, select(*_COLUMNS).where(schedules.c.id == schedule_id))


def find_to_change(conn: Connection, schedule_id: str) -> ScheduleRow | None:
    """Return one job, which nobody else changes before this transaction ends."""
    return _first(conn, select(*_COLUMNS).where(schedules.c.id == schedule_id).with_for_update())


def _first(conn: Connection, statement: Select[Any]) -> ScheduleRow | None:
    row = conn.execute(statement).mappings().first()
    return None if row is None else ScheduleRow(**row)


def find_with_owner(conn: Connection, schedule_id: str) -> tuple[ScheduleRow, int] | None:
    """Return one job and who owns its workflow."""
    row = conn.execute(
        _joined(*_COLUMNS, workflows.c.owner_id).where(schedules.c.id == schedule_id)
    )
    found = row.mappings().first()
    if found is None:
        return None
    values = dict(found)
    owner_id = values.pop("owner_id")
    return ScheduleRow(**values), owner_id


def list_page(
    conn: Connection,
    owners: Collection[int] | None,
    *,
    status: str | None,
    workflow_id: int | None,
    limit: int,
    offset: int,
) -> tuple[list[ScheduleRow], int]:
    """Return a page of jobs, newest first, and how many match in all.

    Args:
        owners: whose workflows' jobs count; None: everybody's.
    """
    wanted: list[ColumnElement[bool]] = []
    if owners is not None:
        wanted.append(workflows.c.owner_id.in_(owners))
    if status is not None:
        wanted.append(schedules.c.status == status)
    if workflow_id is not None:
        wanted.append(schedules.c.workflow_id == workflow_id)
    total = conn.scalar(_joined(func.count()).where(*wanted)) or 0
    rows = conn.execute(
        _joined(*_COLUMNS)
        .where(*wanted)
        .order_by(schedules.c.created_at.desc(), schedules.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return [ScheduleRow(**row) for row in rows.mappings()], total


def find_of_node(conn: Connection, workflow_id: int, node_id: str) -> ScheduleRow | None:
    """Return the node's own job: the oldest one that names it."""
    return jobs_of_nodes(conn, workflow_id, node_id).get(node_id)


def jobs_of_nodes(
    conn: Connection, workflow_id: int, node_id: str | None = None
) -> dict[str, ScheduleRow]:
    """Return the own jobs of the nodes of a workflow, or of one node: `{node_id: job}`."""
    wanted = [schedules.c.workflow_id == workflow_id, schedules.c.trigger_node_id.is_not(None)]
    if node_id is not None:
        wanted.append(schedules.c.trigger_node_id == node_id)
    rows = conn.execute(
        select(*_COLUMNS)
        .where(*wanted)
        # The oldest is written last, and wins.
        .order_by(schedules.c.created_at.desc(), schedules.c.id.desc())
    )
    found = [ScheduleRow(**row) for row in rows.mappings()]
    return {job.trigger_node_id: job for job in found if job.trigger_node_id is not None}


def count_active(conn: Connection, user_id: int) -> int:
    """Return how many active jobs a user has."""
    wanted = (schedules.c.user_id == user_id, schedules.c.status == "active")
    return conn.scalar(select(func.count()).select_from(schedules).where(*wanted)) or 0


def find_of_call(conn: Connection, dedupe_key: str) -> ScheduleRow | None:
    """Return the job that a tool call has made."""
    return _first(conn, select(*_COLUMNS).where(schedules.c.dedupe_key == dedupe_key))


def add(conn: Connection, row: ScheduleRow, *, dedupe_key: str | None = None) -> None:
    """Store a new job.

    Args:
        dedupe_key: names the tool call that makes it.
    """
    values = {**msgspec.structs.asdict(row), "dedupe_key": dedupe_key}
    conn.execute(insert(schedules).values(values))


def save(conn: Connection, row: ScheduleRow) -> None:
    """Write a job over its older self."""
    values = msgspec.structs.asdict(row)
    conn.execute(update(schedules).where(schedules.c.id == values.pop("id")).values(values))


def remove(conn: Connection, ids: Collection[str], owners: Collection[int] | None) -> list[str]:
    """Delete those of *ids* that are jobs of workflows of *owners* (None: anybody's).

    Their ticks go with them. Returns what was deleted.
    """
    wanted: list[ColumnElement[bool]] = [schedules.c.id.in_(ids)]
    if owners is not None:
        theirs = select(workflows.c.id).where(workflows.c.owner_id.in_(owners))
        wanted.append(schedules.c.workflow_id.in_(theirs))
    return list(conn.scalars(delete(schedules).where(*wanted).returning(schedules.c.id)))


# Ticks


class Run(msgspec.Struct, frozen=True):
    """A run of a job whose outcome is not recorded yet. `ended`: it is known by now."""

    execution_id: str
    ended: bool


def has_fired(conn: Connection, schedule_id: str, nominal_time: datetime) -> bool:
    """Whether this nominal time has had its tick."""
    wanted = (
        schedule_fires.c.schedule_id == schedule_id,
        schedule_fires.c.nominal_time == nominal_time,
    )
    return bool(conn.scalar(select(exists().where(*wanted))))


def add_fire(
    conn: Connection,
    row: ScheduleRow,
    *,
    execution_id: str | None,
    outcome: Outcome | None = None,
    now: datetime,
) -> None:
    """Note that a job's due time has had its tick; the database takes each time only once."""
    conn.execute(
        insert(schedule_fires).values(
            schedule_id=row.id,
            nominal_time=row.due_at,
            execution_id=execution_id,
            outcome=outcome,
            fired_at=now,
        )
    )


def close_fire(conn: Connection, schedule_id: str, execution_id: str, outcome: Outcome) -> bool:
    """Note the outcome of a run; False if that was done before, or the job is gone."""
    noted = (
        update(schedule_fires)
        .where(
            schedule_fires.c.schedule_id == schedule_id,
            schedule_fires.c.execution_id == execution_id,
            schedule_fires.c.outcome.is_(None),
        )
        .values(outcome=outcome)
    )
    return conn.execute(noted).rowcount == 1


def open_runs(conn: Connection, schedule_id: str) -> list[Run]:
    """Return the runs of a job whose outcome is not recorded yet, oldest first."""
    ended = or_(executions.c.id.is_(None), executions.c.status.in_(TERMINAL))
    rows = conn.execute(
        select(schedule_fires.c.execution_id, ended)
        .join_from(
            schedule_fires,
            executions,
            executions.c.id == schedule_fires.c.execution_id,
            isouter=True,
        )
        .where(schedule_fires.c.schedule_id == schedule_id, schedule_fires.c.outcome.is_(None))
        .order_by(schedule_fires.c.nominal_time)
    )
    return [Run(execution_id, bool(over)) for execution_id, over in rows]


def is_running(conn: Connection, schedule_id: str) -> bool:
    """Whether an execution that the job started is pending or running."""
    wanted = (
        executions.c.schedule_id == schedule_id,
        executions.c.status.in_(("pending", "running")),
    )
    return bool(conn.scalar(select(exists().where(*wanted))))


# Who runs a job


class Stray(msgspec.Struct, frozen=True):
    """A job that needs its actor, and how it stood. `lost`: no live server runs it."""

    id: str
    lost: bool
    status: str
    owner: str | None


def find_strays(conn: Connection, owner: Owner, *, overdue: datetime) -> list[Stray]:
    """Return the jobs whose actor is to look after them now, as far as *owner* can tell.

    Those with something to do that no live server owns, and own ones that missed something: a due
    time before *overdue*, or the end of a run.
    """
    foreign = or_(schedules.c.owner != owner.node_id, schedules.c.epoch != owner.epoch)
    if conn.dialect.name != "sqlite":  # an SQLite file has one server: other epochs are dead
        foreign = and_(foreign, ~live_server(schedules.c.owner, schedules.c.epoch))
    lost = or_(schedules.c.owner.is_(None), foreign)
    own = and_(schedules.c.owner == owner.node_id, schedules.c.epoch == owner.epoch)
    unsettled = exists().where(
        schedule_fires.c.schedule_id == schedules.c.id, schedule_fires.c.outcome.is_(None)
    )
    goes_on = exists().where(
        executions.c.id == schedule_fires.c.execution_id, executions.c.status.not_in(TERMINAL)
    )
    ended = exists().where(
        schedule_fires.c.schedule_id == schedules.c.id,
        schedule_fires.c.outcome.is_(None),
        ~goes_on,
    )
    rows = conn.execute(
        select(schedules.c.id, lost, schedules.c.status, schedules.c.owner)
        .where(
            or_(
                and_(lost, or_(schedules.c.status == "active", unsettled)),
                and_(own, or_(schedules.c.next_run_at < overdue, ended)),
            )
        )
        .order_by(schedules.c.next_run_at)
    )
    return [
        Stray(row_id, bool(is_lost), status, held_by) for row_id, is_lost, status, held_by in rows
    ]


def claim(conn: Connection, ids: Collection[str], owner: Owner) -> None:
    """Make *owner* the server that runs these jobs; a former one is fenced at its next tick."""
    for schedule_id in ids:
        conn.execute(
            update(schedules)
            .where(schedules.c.id == schedule_id)
            .values(owner=owner.node_id, epoch=owner.epoch)
        )


def _joined(*columns: Any) -> Select[Any]:
    return select(*columns).select_from(
        schedules.join(workflows, workflows.c.id == schedules.c.workflow_id)
    )

"""Tasks of epics. Contract: tasks.md."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from pipelit.store.queries.tags import has_any
from pipelit.store.schema import epics, tasks, users


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """A task as stored. Money is micro-dollars."""

    id: str
    epic_id: str
    title: str
    description: str
    tags: list[str]
    created_by_node_id: str | None
    status: str
    priority: int
    workflow_id: int | None
    workflow_slug: str | None
    execution_id: str | None
    workflow_source: str
    depends_on: list[str]
    requirements: dict[str, Any] | None
    estimated_tokens: int | None
    actual_tokens: int
    actual_micros: int
    llm_calls: int
    tool_invocations: int
    duration_ms: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    result_summary: str | None
    error_message: str | None
    retry_count: int
    max_retries: int
    notes: list[Any]


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What an epic's tasks add up to. Micro-dollars."""

    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    spent_tokens: int
    spent_micros: int


_COLUMNS = tuple(tasks.c[name] for name in TaskRow.__struct_fields__)
_tally = select(
    func.count().label("total_tasks"),
    func.count().filter(tasks.c.status == "completed").label("completed_tasks"),
    func.count().filter(tasks.c.status == "failed").label("failed_tasks"),
    func.coalesce(func.sum(tasks.c.actual_tokens), 0).label("spent_tokens"),
    func.coalesce(func.sum(tasks.c.actual_micros), 0).label("spent_micros"),
).where(tasks.c.epic_id == bindparam("epic"))
_OLDEST_FIRST = (tasks.c.created_at, tasks.c.id)
_NEWEST_FIRST = (tasks.c.created_at.desc(), tasks.c.id.desc())


def find_task(conn: Connection, task_id: str) -> TaskRow | None:
    """Return the task *task_id*."""
    row = conn.execute(select(*_COLUMNS).where(tasks.c.id == task_id)).mappings().first()
    return None if row is None else TaskRow(**row)


def is_task_of(conn: Connection, task_id: str, user_id: int) -> bool:
    """Tell whether a task is in an epic of a user, or of whom the user, an agent, acts for."""
    acts_for = select(users.c.created_by_id).where(users.c.id == user_id, users.c.kind == "agent")
    owners = or_(epics.c.user_id == user_id, epics.c.user_id.in_(acts_for))
    found = select(tasks.c.id).join(epics, epics.c.id == tasks.c.epic_id)
    return conn.scalar(found.where(tasks.c.id == task_id, owners)) is not None


def find_task_of_call(conn: Connection, dedupe_key: str) -> TaskRow | None:
    """Return the task that a tool call has made."""
    wanted = tasks.c.dedupe_key == dedupe_key
    row = conn.execute(select(*_COLUMNS).where(wanted)).mappings().first()
    return None if row is None else TaskRow(**row)


def find_tasks(conn: Connection, ids: Collection[str]) -> Sequence[TaskRow]:
    """Return those of *ids* that exist, oldest first."""
    statement = select(*_COLUMNS).where(tasks.c.id.in_(ids)).order_by(*_OLDEST_FIRST)
    return [TaskRow(**row) for row in conn.execute(statement).mappings()]


def list_states(conn: Connection, epic_id: str) -> Sequence[Mapping[str, Any]]:
    """Return what the rules know of each task of an epic, oldest first.

    Contract of the keys: `pipelit.engine.tasks.TaskState`.
    """
    statement = select(tasks.c.id, tasks.c.status, tasks.c.depends_on)
    rows = conn.execute(statement.where(tasks.c.epic_id == epic_id).order_by(*_OLDEST_FIRST))
    return [dict(row) for row in rows.mappings()]


def tally(conn: Connection, epic_id: str) -> Tally:
    """Count and add up the tasks of an epic."""
    row = conn.execute(_tally, {"epic": epic_id}).mappings().one()
    return Tally(**{name: int(value) for name, value in row.items()})


def list_tasks(
    conn: Connection,
    *,
    epic_id: str | None,
    status: str | None = None,
    tags: Collection[str] = (),
    limit: int,
    offset: int,
) -> tuple[Sequence[TaskRow], int]:
    """Return a page of the tasks that match, newest first, and how many there are."""
    wanted: list[ColumnElement[bool]] = []
    if epic_id is not None:
        wanted.append(tasks.c.epic_id == epic_id)
    if status is not None:
        wanted.append(tasks.c.status == status)
    if tags:
        wanted.append(has_any(conn, tasks.c.tags, tags))
    total = conn.scalar(select(func.count()).select_from(tasks).where(*wanted)) or 0
    page = select(*_COLUMNS).where(*wanted).order_by(*_NEWEST_FIRST).limit(limit).offset(offset)
    return [TaskRow(**row) for row in conn.execute(page).mappings()], total


def insert_task(conn: Connection, values: Mapping[str, Any]) -> None:
    """Store a task."""
    conn.execute(insert(tasks).values(**values))


def update_tasks(conn: Connection, ids: Collection[str], values: Mapping[str, Any]) -> None:
    """Change columns of tasks."""
    conn.execute(update(tasks).where(tasks.c.id.in_(ids)).values(**values))


def link_task(
    conn: Connection, task_id: str, execution_id: str, workflow_id: int, *, now: datetime
) -> bool:
    """Have a task run by an execution of a workflow; False if there is no such task."""
    values = {
        "execution_id": execution_id,
        "workflow_id": workflow_id,
        "status": "running",
        "started_at": func.coalesce(tasks.c.started_at, literal(now, tasks.c.started_at.type)),
        "completed_at": None,
        "error_message": None,
        "updated_at": now,
    }
    linked = update(tasks).where(tasks.c.id == task_id).values(values)
    return conn.execute(linked).rowcount == 1


def relink_tasks(conn: Connection, old_id: str, new_id: str, *, now: datetime) -> bool:
    """Have the tasks of an execution run by its retry; False if it has none."""
    values = {
        "execution_id": new_id,
        "status": "running",
        "retry_count": tasks.c.retry_count + 1,
        "completed_at": None,
        "error_message": None,
        "updated_at": now,
    }
    linked = update(tasks).where(tasks.c.execution_id == old_id).values(values)
    return conn.execute(linked).rowcount > 0


def cancel_open_tasks(conn: Connection, epic_id: str, *, now: datetime) -> Sequence[TaskRow]:
    """Cancel the tasks of an epic that are not finished.

    Returns:
        Those tasks as they were before, oldest first.
    """
    is_open = (tasks.c.epic_id == epic_id, tasks.c.status.in_(("pending", "blocked", "running")))
    rows = conn.execute(select(*_COLUMNS).where(*is_open).order_by(*_OLDEST_FIRST)).mappings()
    before = [TaskRow(**row) for row in rows]
    conn.execute(update(tasks).where(*is_open).values(**cancelled(now)))
    return before


def cancelled(now: datetime) -> dict[str, Any]:
    """Return what changes in a task that is cancelled."""
    return {"status": "cancelled", "completed_at": now, "updated_at": now}


def delete_tasks(conn: Connection, ids: Collection[str]) -> None:
    """Delete tasks."""
    conn.execute(delete(tasks).where(tasks.c.id.in_(ids)))

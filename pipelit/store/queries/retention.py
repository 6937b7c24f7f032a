"""What has been kept for long enough. Contract: operations.md §6."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, or_, select, tuple_

from pipelit.store.queries import needed
from pipelit.store.queries.executions import KEY_LIFE, delete_ended
from pipelit.store.schema import dispatches, executions, idempotency_keys, schedule_fires

TICK_LIFE = timedelta(days=30)
"""How long a tick of a schedule is kept, from its nominal time."""

_ENDED = executions.c.completed_at.is_not(None)
"""Not by status: the index of ends has the order in which they are deleted."""

Key: TypeAlias = tuple[Any, ...]
"""The primary key of a row."""


def find_executions(
    conn: Connection, *, ended_before: datetime | None, keep: int, limit: int
) -> list[str]:
    """Return the oldest ended executions to delete.

    Those that are needed stay: by one that has not ended, for a delivery that is due, for an
    outcome that their schedule has not recorded.

    Args:
        ended_before: those that ended earlier are too old; None: no age is.
        keep: all but so many are too many; 0: none are.
    """
    too_old = [] if ended_before is None else [executions.c.completed_at < ended_before]
    doomed = [*too_old, *_beyond(conn, keep)]
    if not doomed:
        return []
    due = exists().where(
        dispatches.c.execution_id == executions.c.id, dispatches.c.due_at.is_not(None)
    )
    unrecorded = exists().where(
        schedule_fires.c.schedule_id == executions.c.schedule_id,
        schedule_fires.c.execution_id == executions.c.id,
        schedule_fires.c.outcome.is_(None),
    )
    return list(
        conn.scalars(
            select(executions.c.id)
            .where(_ENDED, or_(*doomed), ~due, ~unrecorded)
            .where(executions.c.id.not_in(needed.IDS))
            .order_by(executions.c.completed_at, executions.c.created_seq)
            .limit(limit)
        )
    )


def _beyond(conn: Connection, keep: int) -> list[ColumnElement[bool]]:
    """Return the condition of being older than the newest *keep* that have ended."""
    if not keep:
        return []
    place = executions.c.completed_at, executions.c.created_seq
    last = conn.execute(
        select(*place)
        .where(_ENDED)
        .order_by(*(column.desc() for column in place))
        .offset(keep - 1)
        .limit(1)
    ).one_or_none()
    if last is None:
        return []
    at, seq = last
    same = and_(executions.c.completed_at == at, executions.c.created_seq < seq)
    return [or_(executions.c.completed_at < at, same)]


def delete_executions(
    conn: Connection, execution_ids: Sequence[str], *, timer: Callable[[], float], seconds: float
) -> int:
    """Delete ended executions one by one, for so long; return how many were dealt with."""
    end = timer() + seconds
    for count, execution_id in enumerate(execution_ids, 1):
        delete_ended(conn, [execution_id])
        if timer() >= end:
            return count
    return len(execution_ids)


def find_keys(conn: Connection, *, now: datetime, limit: int) -> list[Key]:
    """Return idempotency keys that count no more."""
    return _find(conn, idempotency_keys, idempotency_keys.c.created_at <= now - KEY_LIFE, limit)


def find_ticks(conn: Connection, *, now: datetime, limit: int) -> list[Key]:
    """Return old ticks of schedules. One whose outcome is open is still needed."""
    fires = schedule_fires.c
    old = and_(fires.nominal_time < now - TICK_LIFE, fires.outcome.is_not(None))
    return _find(conn, schedule_fires, old, limit)


def _find(conn: Connection, table: Table, old: ColumnElement[bool], limit: int) -> list[Key]:
    rows = conn.execute(select(*table.primary_key.columns).where(old).limit(limit))
    return [tuple(row) for row in rows]


def delete_keys(conn: Connection, keys: Sequence[Key], *, now: datetime) -> None:
    """Delete idempotency keys, unless they were used anew meanwhile."""
    old = idempotency_keys.c.created_at <= now - KEY_LIFE
    conn.execute(delete(idempotency_keys).where(old, _among(idempotency_keys, keys)))


def delete_ticks(conn: Connection, keys: Sequence[Key]) -> None:
    """Delete ticks of schedules."""
    conn.execute(delete(schedule_fires).where(_among(schedule_fires, keys)))


def _among(table: Table, keys: Sequence[Key]) -> ColumnElement[bool]:
    return tuple_(*table.primary_key.columns).in_(keys)


def count_free_pages(conn: Connection) -> int:
    """Return how many pages of an SQLite file hold nothing; PostgreSQL sees to its own."""
    if conn.dialect.name != "sqlite":
        return 0
    if conn.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() != 2:  # not made by this program
        return 0
    return int(conn.exec_driver_sql("PRAGMA freelist_count").scalar_one())


def give_back_pages(conn: Connection, count: int) -> None:
    """Give free pages at the end of an SQLite file back to the file system."""
    # Each step of the statement frees a page, and the driver takes but one.
    for _ in range(count):
        conn.exec_driver_sql("PRAGMA incremental_vacuum(1)").close()

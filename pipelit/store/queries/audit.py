"""What must hold for every execution of a database, whatever happened to its servers."""

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, and_, func, literal, or_, select

from pipelit.store.queries.executions import TERMINAL
from pipelit.store.schema import execution_events, executions, journal

LISTED = 1_000
"""Most executions that are named for one rule."""


def find_broken(conn: Connection) -> Iterator[tuple[str, list[str]]]:
    """Yield each rule's name and the executions that break it."""
    yield "states", _ids(conn, _bad_state())
    yield "event numbers", _ids(conn, _bad_numbers())
    yield "last events", _ids(conn, _bad_ends())
    yield "journals", _broken_journals(conn)


def _ids(conn: Connection, wanted: ColumnElement[bool]) -> list[str]:
    statement = select(executions.c.id).where(wanted).order_by(executions.c.id).limit(LISTED)
    return list(conn.scalars(statement))


def _bad_state() -> ColumnElement[bool]:
    """Select ended ones without an end, and started ones without a start or a graph."""
    ended, begun = executions.c.status.in_(TERMINAL), executions.c.status == "running"
    return or_(
        and_(ended, executions.c.completed_at.is_(None)),
        and_(~ended, executions.c.completed_at.is_not(None)),
        and_(begun, or_(executions.c.started_at.is_(None), executions.c.snapshot.is_(None))),
    )


def _bad_numbers() -> ColumnElement[bool]:
    """Select those whose events are not 1, 2, 3 … up to `last_seq`."""
    mine = execution_events.c.execution_id == executions.c.id
    count = select(func.count()).where(mine).scalar_subquery()
    highest = select(func.coalesce(func.max(execution_events.c.seq), 0)).where(mine)
    return or_(count != executions.c.last_seq, highest.scalar_subquery() != executions.c.last_seq)


def _bad_ends() -> ColumnElement[bool]:
    """Select ended ones whose last event is not their end, or that have an end before it."""
    ended = executions.c.status.in_(TERMINAL)
    mine = execution_events.c.execution_id == executions.c.id
    ends = [f"execution_{status}" for status in TERMINAL]
    right = select(func.count()).where(
        mine,
        execution_events.c.seq == executions.c.last_seq,
        execution_events.c.type == literal("execution_").concat(executions.c.status),
    )
    all_ends = select(func.count()).where(mine, execution_events.c.type.in_(ends))
    return or_(
        and_(ended, or_(right.scalar_subquery() != 1, all_ends.scalar_subquery() != 1)),
        and_(~ended, all_ends.scalar_subquery() != 0),
    )


def _broken_journals(conn: Connection) -> list[str]:
    """Return those whose records are not 1, 2, 3 …."""
    statement = (
        select(journal.c.execution_id)
        .group_by(journal.c.execution_id)
        .having(func.count() != func.max(journal.c.position))
        .order_by(journal.c.execution_id)
        .limit(LISTED)
    )
    return list(conn.scalars(statement))

"""What is still to be done after an execution has begun or ended: at least once, each kind once.

A dispatch is due at an instant. Whoever takes it moves that instant past the time the attempt can
take, so that no other server takes it too, and one that a crash interrupts comes up again. Done
ones have no such instant. Contract: engine.md §10.6.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from pipelit.store.schema import dispatches, executions

DELIVERY = "delivery"
ROLL_UP = "roll_up"
"""Carry the end of an execution over to its tasks, for once this failed."""
ROLLED_UP = "rolled_up"
"""Tell of the tasks that an execution has left with their outcome."""
ERROR = "error"
LINK = "link"
"""Tell of the tasks that an execution runs from now on."""


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """A dispatch that was taken. `attempts`: how often so far, this time included."""

    execution_id: str
    attempts: int
    trigger: dict[str, Any]
    final_output: Any


def add(conn: Connection, execution_id: str, kinds: Iterable[str], *, due_at: datetime) -> None:
    """Note what is to be done for an execution, in the transaction that ends it."""
    rows = [{"execution_id": execution_id, "kind": kind, "due_at": due_at} for kind in kinds]
    if rows:
        conn.execute(insert(dispatches), rows)


def list_due(conn: Connection, kind: str, *, now: datetime, limit: int) -> list[str]:
    """Return the executions for which something is due, the longest waiting first."""
    statement = select(dispatches.c.execution_id).where(
        dispatches.c.kind == kind, dispatches.c.due_at <= now
    )
    order = (dispatches.c.due_at, dispatches.c.execution_id)
    return list(conn.scalars(statement.order_by(*order).limit(limit)))


def finish_once(conn: Connection, kind: str, execution_id: str) -> bool:
    """Mark a dispatch as done in the transaction that does it; False if it was done before."""
    statement = update(dispatches).where(*_is(kind, execution_id), ~dispatches.c.done)
    return conn.execute(statement.values(done=True, due_at=None)).rowcount == 1


def take_due(
    conn: Connection, kind: str, *, now: datetime, until: datetime, limit: int
) -> list[Dispatch]:
    """Take what is due, the longest waiting first; it comes up again at *until*."""
    due = conn.scalars(
        select(dispatches.c.execution_id)
        .where(dispatches.c.kind == kind, dispatches.c.due_at <= now)
        .order_by(dispatches.c.due_at, dispatches.c.execution_id)
        .limit(limit)
    ).all()
    taken = conn.execute(
        update(dispatches)
        # Asked again: on a shared database another server may have taken it meanwhile.
        .where(
            dispatches.c.kind == kind,
            dispatches.c.execution_id.in_(due),
            dispatches.c.due_at <= now,
        )
        .values(attempts=dispatches.c.attempts + 1, due_at=until)
        .returning(dispatches.c.execution_id, dispatches.c.attempts)
    )
    attempts: dict[str, int] = {row.execution_id: row.attempts for row in taken}
    rows = conn.execute(
        select(executions.c.id, executions.c.trigger, executions.c.final_output).where(
            executions.c.id.in_(attempts)
        )
    )
    return [
        Dispatch(
            execution_id=row.id,
            attempts=attempts[row.id],
            trigger=row.trigger,
            final_output=row.final_output,
        )
        for row in rows
    ]


def next_due(conn: Connection, kind: str) -> datetime | None:
    """Return when the next dispatch of a kind is due, None if nothing is to be done."""
    earliest = select(func.min(dispatches.c.due_at)).where(dispatches.c.kind == kind)
    return cast("datetime | None", conn.scalar(earliest))


def postpone(conn: Connection, kind: str, execution_id: str, *, due_at: datetime) -> None:
    """Let a dispatch come up again at an instant."""
    conn.execute(update(dispatches).where(*_is(kind, execution_id)).values(due_at=due_at))


def finish(conn: Connection, kind: str, execution_id: str) -> None:
    """Mark a dispatch as done, or as given up: it does not come up again."""
    statement = update(dispatches).where(*_is(kind, execution_id))
    conn.execute(statement.values(done=True, due_at=None))


def reopen(conn: Connection, kind: str, *, now: datetime) -> None:
    """Let what was under way when a server ended come up at once, where nobody else can be at it.

    A file has one server. On a shared database the time of the attempt has to run out.
    """
    if conn.dialect.name == "sqlite":
        statement = update(dispatches).where(dispatches.c.kind == kind, dispatches.c.due_at > now)
        conn.execute(statement.values(due_at=now))


def _is(kind: str, execution_id: str) -> tuple[ColumnElement[bool], ...]:
    return (dispatches.c.kind == kind, dispatches.c.execution_id == execution_id)

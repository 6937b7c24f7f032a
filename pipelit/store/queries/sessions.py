"""Turns of a chat session: one of its executions runs at a time, on whatever server.

Contract: engine.md §7.2.
"""

from sqlalchemy import Connection, and_, bindparam, or_, select, text

from pipelit.store.schema import executions


class NotItsTurn(Exception):
    """An earlier execution of the session runs or waits: nothing was written."""


_lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:thread, 0))")
_mine = (
    select(executions.c.created_seq).where(executions.c.id == bindparam("this")).scalar_subquery()
)
_earlier = (
    select(executions.c.id)
    .where(
        executions.c.thread_id == bindparam("thread"),
        executions.c.serial,
        executions.c.id != bindparam("this"),
        or_(
            executions.c.status == "running",
            and_(executions.c.status == "pending", executions.c.created_seq < _mine),
        ),
    )
    .limit(1)
)
_queue = (
    select(executions.c.id)
    .where(
        executions.c.thread_id == bindparam("thread"),
        executions.c.serial,
        executions.c.status.in_(("running", "pending")),
    )
    .order_by(executions.c.status.desc(), executions.c.created_seq)
)


def require_turn(conn: Connection, execution_id: str, thread_id: str) -> None:
    """Make sure, in the transaction that begins it, that no other runs or comes before.

    A file has one server, whose actor of the session sees to that already.

    Raises:
        NotItsTurn: another does.
    """
    if conn.dialect.name == "sqlite":
        return
    conn.execute(_lock, {"thread": thread_id})
    if conn.execute(_earlier, {"this": execution_id, "thread": thread_id}).first():
        raise NotItsTurn(execution_id)


def session_queue(conn: Connection, thread_id: str) -> list[str]:
    """Return the executions of a chat session that run or wait for their turn, in order."""
    return list(conn.scalars(_queue, {"thread": thread_id}))

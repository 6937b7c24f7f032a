"""Executions that wait for nothing and do not run. Contract: operations.md §2."""

from typing import Literal, TypeAlias

import msgspec
from sqlalchemy import Connection, Select, and_, exists, func, literal, or_, select, union_all

from pipelit.store.queries.journal import Owner
from pipelit.store.queries.servers import live_server
from pipelit.store.schema import executions, pending_tasks

LISTED = 10_000
"""Most that are looked at; more are as bad."""

Why = Literal["no_owner", "could_start", "no_question"]
_Rows: TypeAlias = Select[tuple[str, str]]


class Idle(msgspec.Struct, frozen=True):
    """One that seems to wait for nothing at this moment, and the name of the reason."""

    execution_id: str
    why: Why


def find_idle(conn: Connection, owner: Owner, *, has_slot: bool) -> tuple[Idle, ...]:
    """Return the executions that nothing moves at this moment.

    Args:
        owner: who asks; alive.
        has_slot: whether a pending execution could start here.
    """
    kinds = [_running_without_owner(conn, owner), _interrupted_without_question()]
    if has_slot:
        kinds.append(_pending_with_free_session())
    return tuple(Idle(row.id, row.why) for row in conn.execute(union_all(*kinds).limit(LISTED)))


def count_by_status(conn: Connection) -> dict[str, int]:
    """Return how many executions have each status; a status that none has is left out."""
    status = executions.c.status
    statement = select(status, func.count().label("total")).group_by(status)
    return {row.status: row.total for row in conn.execute(statement)}


def _running_without_owner(conn: Connection, owner: Owner) -> _Rows:
    # On SQLite every other epoch is dead by definition: the file has one server.
    foreign = or_(executions.c.owner != owner.node_id, executions.c.epoch != owner.epoch)
    if conn.dialect.name != "sqlite":
        foreign = and_(foreign, ~live_server(executions.c.owner, executions.c.epoch))
    return select(executions.c.id, literal("no_owner").label("why")).where(
        executions.c.status == "running", or_(executions.c.owner.is_(None), foreign)
    )


def _interrupted_without_question() -> _Rows:
    question = exists().where(
        pending_tasks.c.execution_id == executions.c.id, pending_tasks.c.answered_at.is_(None)
    )
    return select(executions.c.id, literal("no_question").label("why")).where(
        executions.c.status == "interrupted", ~question
    )


def _pending_with_free_session() -> _Rows:
    other = executions.alias()
    # One that is interrupted has left its session; an older pending one is next, and stuck itself.
    holds = or_(
        other.c.status == "running",
        and_(other.c.status == "pending", other.c.created_seq < executions.c.created_seq),
    )
    session_taken = exists().where(
        other.c.thread_id == executions.c.thread_id,
        other.c.serial,
        other.c.status.in_(("running", "pending")),
        holds,
    )
    return select(executions.c.id, literal("could_start").label("why")).where(
        executions.c.status == "pending", or_(~executions.c.serial, ~session_taken)
    )

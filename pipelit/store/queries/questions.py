"""Open questions of executions (`pending_tasks`): each is answered at most once. engine.md §16.

A question is open until `answered_at`, which is the instant of its answer or, with `answer` null,
of its expiry. The first of both to come wakes an execution that waits for it: it is `running`
again, without an owner, and whoever looks for such takes it up.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import cast

import msgspec
from sqlalchemy import Connection, Select, bindparam, delete, exists, func, insert, select, update

from pipelit.store.queries.executions import TERMINAL
from pipelit.store.schema import executions, pending_tasks

_OPEN = pending_tasks.c.answered_at.is_(None)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question to store. `chat_id`, `credential_id`: the chat in which it is asked, if any."""

    task_id: str
    node_id: str
    iteration: str
    kind: str
    user_id: int | None
    chat_id: str | None
    credential_id: str | None
    prompt: str
    created_at: datetime
    expires_at: datetime


class Answer(msgspec.Struct, frozen=True):
    """A question that is not open any more. `text` None: nobody answered in time."""

    task_id: str
    text: str | None


class AskedInChat(msgspec.Struct, frozen=True):
    """Who asked a question in a chat, and until when it may be answered."""

    execution_id: str
    expires_at: datetime


class OpenQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question as people see it."""

    task_id: str
    node_id: str
    prompt: str
    created_at: datetime
    expires_at: datetime


def open_all(conn: Connection, execution_id: str, questions: Sequence[Question]) -> None:
    """Store new questions, in the transaction that makes their nodes wait."""
    if questions:
        rows = [msgspec.structs.asdict(one) | {"execution_id": execution_id} for one in questions]
        conn.execute(insert(pending_tasks), rows)


_forget = delete(pending_tasks).where(pending_tasks.c.execution_id == bindparam("of"), _OPEN)


def forget_open(conn: Connection, execution_id: str) -> None:
    """Delete the open questions of an execution, in the transaction that ends it."""
    conn.execute(_forget, {"of": execution_id})


def any_answered(conn: Connection, task_ids: Collection[str]) -> bool:
    """Tell whether one of these is not open any more."""
    found = exists().where(pending_tasks.c.task_id.in_(task_ids), ~_OPEN)
    return bool(conn.scalar(select(found)))


def list_answers(conn: Connection, execution_id: str) -> list[Answer]:
    """Return the answers to questions of an execution, the first one first."""
    table = pending_tasks
    rows = conn.execute(
        select(table.c.task_id, table.c.answer)
        .where(table.c.execution_id == execution_id, ~_OPEN)
        .order_by(table.c.answered_at, table.c.task_id)
    )
    return [Answer(*row) for row in rows]


def list_open(conn: Connection, execution_id: str) -> list[OpenQuestion]:
    """Return the open questions of an execution that has not ended, oldest first."""
    table = pending_tasks
    columns = (table.c[name] for name in OpenQuestion.__struct_fields__)
    rows = conn.execute(
        select(*columns)
        .join(executions, executions.c.id == table.c.execution_id)
        .where(table.c.execution_id == execution_id, executions.c.status.not_in(TERMINAL), _OPEN)
        .order_by(table.c.created_at, table.c.task_id)
    ).mappings()
    return [OpenQuestion(**row) for row in rows]


def answer(conn: Connection, execution_id: str, task_id: str, text: str, *, now: datetime) -> bool:
    """Answer an open question of an execution and wake the execution; False if it is too late."""
    status = conn.scalar(_locked([execution_id]))
    statement = (
        update(pending_tasks)
        .where(
            pending_tasks.c.task_id == task_id,
            pending_tasks.c.execution_id == execution_id,
            pending_tasks.c.expires_at > now,
            _OPEN,
        )
        .values(answer=text, answered_at=now)
    )
    if status is None or conn.execute(statement).rowcount == 0:
        return False
    _wake(conn, [execution_id], now=now)
    return True


def find_asked(conn: Connection, task_id: str, *, chat_id: str) -> AskedInChat | None:
    """Return a question that was asked in this chat and was not answered."""
    table = pending_tasks
    row = conn.execute(
        select(table.c.execution_id, table.c.expires_at).where(
            table.c.task_id == task_id, table.c.chat_id == chat_id, table.c.answer.is_(None)
        )
    ).one_or_none()
    return None if row is None else AskedInChat(*row)


def next_expiry(conn: Connection) -> datetime | None:
    """Return when the next open question expires; None if there is none."""
    earliest = select(func.min(pending_tasks.c.expires_at)).where(_OPEN)
    return cast("datetime | None", conn.scalar(earliest))


def expire(conn: Connection, *, now: datetime, limit: int) -> list[str]:
    """Close the questions whose time is over and wake their executions; return these, once."""
    due = select(pending_tasks.c.execution_id).where(_OPEN, pending_tasks.c.expires_at <= now)
    asking = conn.scalars(due.order_by(pending_tasks.c.expires_at).limit(limit)).all()
    conn.execute(_locked(sorted(set(asking)))).all()
    closed = (
        update(pending_tasks)
        .where(pending_tasks.c.execution_id.in_(asking), pending_tasks.c.expires_at <= now, _OPEN)
        .values(answered_at=now)
        .returning(pending_tasks.c.execution_id)
    )
    found = list(dict.fromkeys(conn.scalars(closed)))
    _wake(conn, found, now=now)
    return found


def _locked(execution_ids: Sequence[str]) -> Select[tuple[str]]:
    """Read the status of executions that have not ended, and let nobody change it meanwhile."""
    return (
        select(executions.c.status)
        .where(executions.c.id.in_(execution_ids), executions.c.status.not_in(TERMINAL))
        .order_by(executions.c.id)
        .with_for_update()
    )


def _wake(conn: Connection, execution_ids: Sequence[str], *, now: datetime) -> None:
    conn.execute(
        update(executions)
        .where(executions.c.id.in_(execution_ids), executions.c.status == "interrupted")
        .values(status="running", last_activity_at=now)
    )

"""Open questions of executions (`pending_tasks`): each is answered at most once. engine.md §16."""

from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, select, update

from pipelit.store.queries.executions import TERMINAL
from pipelit.store.schema import executions, pending_tasks

Answered = Literal["answered", "expired", "not_found"]


def answer_question(
    conn: Connection, task_id: str, text: str, *, chat_id: str, now: datetime
) -> Answered:
    """Answer a question that was asked in a chat, if it is still open.

    A question of another chat, and one that was answered before, are not found.
    """
    table = pending_tasks
    row = conn.execute(
        select(table.c.expires_at)
        .join(executions, executions.c.id == table.c.execution_id)
        .where(
            table.c.task_id == task_id,
            table.c.chat_id == chat_id,
            table.c.answer.is_(None),
            executions.c.status.not_in(TERMINAL),
        )
    ).one_or_none()
    if row is None:
        return "not_found"
    if row.expires_at <= now:
        return "expired"
    statement = update(table).where(table.c.task_id == task_id)
    conn.execute(statement.values(answer=text, answered_at=now))
    return "answered"

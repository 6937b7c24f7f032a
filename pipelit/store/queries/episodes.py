"""How executions went, for later ones to remember: opened and closed with the execution.

Contract: engine.md §30, memory.md.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from pipelit.engine.output import delivery_text
from pipelit.store.schema import episodes, execution_logs, executions

MAX_ACTIONS = 200
MAX_ASKED, MAX_GIVEN = 200, 300
"""Characters of the trigger's text and of the result in a summary."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """An episode that begins. `user_id`: the canonical id of a memory user."""

    workflow_id: int
    user_id: str
    trigger_type: str


_mine = episodes.c.execution_id == bindparam("this")
_find_episode = (
    select(episodes.c.started_at, executions.c.trigger)
    .join(executions, executions.c.id == episodes.c.execution_id)
    .where(_mine)
)
_find_actions = (
    select(execution_logs.c.node_id, execution_logs.c.status, execution_logs.c.duration_ms)
    .where(execution_logs.c.execution_id == bindparam("this"))
    .order_by(execution_logs.c.id)
    .limit(MAX_ACTIONS)
)
_close = update(episodes).where(_mine)
_open = insert(episodes)


def begin(conn: Connection, execution_id: str, opening: Opening, *, now: datetime) -> None:
    """Open the episode of an execution that starts. It has the execution's id."""
    conn.execute(
        _open,
        {
            "id": execution_id,
            "execution_id": execution_id,
            "agent_id": f"workflow:{opening.workflow_id}",
            "user_id": opening.user_id[:255],
            "trigger_type": opening.trigger_type,
            "started_at": now,
            "created_at": now,
        },
    )


def finish(conn: Connection, execution_id: str, end: Mapping[str, Any], *, now: datetime) -> None:
    """Close the episode of an execution that has ended, if it was opened and not deleted.

    Args:
        conn: of the transaction that ends the execution.
        execution_id: which.
        end: the `status`, `final_output`, `error_message` and `error_code` of its row.
        now: when it ended.
    """
    row = conn.execute(_find_episode, {"this": execution_id}).one_or_none()
    if row is None:
        return
    asked = row.trigger.get("text")
    succeeded = end["status"] == "completed"
    given = delivery_text(end["final_output"]) if succeeded else end["error_message"]
    actions = conn.execute(_find_actions, {"this": execution_id}).mappings()
    detail = {
        "trigger_input": row.trigger,
        "actions": [dict(action) for action in actions],
        "final_output": end["final_output"],
    }
    values = {
        "success": succeeded,
        "error_code": end["error_code"],
        "summary": summarise(asked if isinstance(asked, str) else "", given),
        "detail": detail,
        "ended_at": now,
        "duration_ms": max(0, (now - row.started_at) // timedelta(milliseconds=1)),
    }
    conn.execute(_close, {"this": execution_id, **values})


def summarise(asked: str, given: str) -> str:
    """Return an episode in one line. Pure."""
    return f"{asked[:MAX_ASKED]} → {given[:MAX_GIVEN]}"

"""Conversation threads: message lists by namespace, and the versions that list them.

The chat transcript is namespace `""`; an agent's memory is the namespace of its node id.
Contract: engine.md §23, chat.md "History", memory.md "Checkpoint".
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
)

from pipelit.store.schema import checkpoints, thread_messages

TRANSCRIPT = ""
KEPT_VERSIONS = 20
MAX_MESSAGES = 1000


class ThreadAppend(msgspec.Struct, frozen=True, kw_only=True):
    """Messages to add to a namespace, as one new version of it.

    `messages`: (role, stored message) pairs. `checkpoint_id` sorts in order of creation.
    """

    thread_id: str
    namespace: str
    source: str
    checkpoint_id: str
    execution_id: str | None
    now: datetime
    messages: tuple[tuple[str, dict[str, Any]], ...]


class ThreadMessage(msgspec.Struct, frozen=True):
    """One stored message."""

    role: str
    message: dict[str, Any]
    timestamp: datetime


# The statements of every chat message are built once: building one costs as much as running it.
_HERE: dict[str, BindParameter[str]] = {
    "thread_id": bindparam("thread_id"),
    "checkpoint_ns": bindparam("checkpoint_ns"),
}

_newest_version = (
    select(
        checkpoints.c.checkpoint_id,
        checkpoints.c.step,
        checkpoints.c.blob_size,
        checkpoints.c.first_position,
        checkpoints.c.last_position,
        thread_messages.c.timestamp,
    )
    .outerjoin(
        thread_messages,
        and_(
            thread_messages.c.thread_id == checkpoints.c.thread_id,
            thread_messages.c.checkpoint_ns == checkpoints.c.checkpoint_ns,
            thread_messages.c.position == checkpoints.c.last_position,
        ),
    )
    .where(*(checkpoints.c[name] == value for name, value in _HERE.items()))
    .order_by(checkpoints.c.step.desc())
    .limit(1)
)
_add_messages = insert(thread_messages)
_add_version = insert(checkpoints)
_forget_versions = delete(checkpoints).where(
    *(checkpoints.c[name] == value for name, value in _HERE.items()),
    checkpoints.c.step <= bindparam("last_step"),
)
_forget_messages = delete(thread_messages).where(
    *(thread_messages.c[name] == value for name, value in _HERE.items()),
    thread_messages.c.position
    < select(func.min(checkpoints.c.first_position))
    .where(*(checkpoints.c[name] == value for name, value in _HERE.items()))
    .scalar_subquery(),
)


def append(conn: Connection, change: ThreadAppend) -> None:
    """Add messages and a version. Timestamps in a thread are unique: a tie moves on by 1 µs."""
    place = {"thread_id": change.thread_id, "checkpoint_ns": change.namespace}
    previous = conn.execute(_newest_version, place).one_or_none()
    position = previous.last_position if previous else 0
    last = previous.timestamp if previous else None
    rows = []
    for role, message in change.messages:
        last = change.now if last is None else max(change.now, last + timedelta(microseconds=1))
        position += 1
        row = {"position": position, "role": role, "message": message, "timestamp": last}
        rows.append(place | {"execution_id": change.execution_id} | row)
    if rows:
        conn.execute(_add_messages, rows)
    first = previous.first_position if previous else 1
    size = sum(_size(message) for _, message in change.messages)
    if position - first >= MAX_MESSAGES:
        kept = _first_exchange(conn, change, position - MAX_MESSAGES + 1)
        size -= _size_between(conn, change, first, kept - 1)
        first = kept
    step = previous.step + 1 if previous else -1
    version = {
        "checkpoint_id": change.checkpoint_id,
        "parent_checkpoint_id": previous.checkpoint_id if previous else None,
        "step": step,
        "source": change.source,
        "blob_size": size + (previous.blob_size if previous else 0),
        "first_position": first,
        "last_position": position,
        "created_at": change.now,
    }
    conn.execute(_add_version, place | version)
    _forget_old_versions(conn, place, step=step, trimmed=first > 1)


def _forget_old_versions(
    conn: Connection, place: dict[str, str], *, step: int, trimmed: bool
) -> None:
    """Delete versions beyond the kept ones, and the messages that only those listed."""
    if step + 2 > KEPT_VERSIONS:  # the first version is step -1
        conn.execute(_forget_versions, place | {"last_step": step - KEPT_VERSIONS})
    if trimmed:
        conn.execute(_forget_messages, place)


def _first_exchange(conn: Connection, change: ThreadAppend, position: int) -> int:
    """Return where the first whole exchange begins at or after *position*: with a user message."""
    found = conn.scalar(
        select(func.min(thread_messages.c.position)).where(
            *_place(change),
            thread_messages.c.position >= position,
            thread_messages.c.role == "user",
        )
    )
    return position if found is None else found


def _size_between(conn: Connection, change: ThreadAppend, first: int, last: int) -> int:
    messages = conn.scalars(
        select(thread_messages.c.message).where(
            *_place(change), thread_messages.c.position.between(first, last)
        )
    )
    return sum(_size(message) for message in messages)


def _size(message: dict[str, Any]) -> int:
    return len(msgspec.json.encode(message))


def _place(change: ThreadAppend) -> tuple[ColumnElement[bool], ...]:
    return (
        thread_messages.c.thread_id == change.thread_id,
        thread_messages.c.checkpoint_ns == change.namespace,
    )


def history(
    conn: Connection,
    thread_id: str,
    namespace: str,
    *,
    limit: int,
    before: datetime | None = None,
) -> tuple[list[ThreadMessage], bool]:
    """Return the newest *limit* messages older than *before*, oldest first, and whether more exist.

    Only what the newest version lists counts.
    """
    version = conn.execute(
        select(checkpoints.c.first_position, checkpoints.c.last_position)
        .where(checkpoints.c.thread_id == thread_id, checkpoints.c.checkpoint_ns == namespace)
        .order_by(checkpoints.c.step.desc())
        .limit(1)
    ).one_or_none()
    if version is None:
        return [], False
    wanted = [
        thread_messages.c.thread_id == thread_id,
        thread_messages.c.checkpoint_ns == namespace,
        thread_messages.c.position.between(version.first_position, version.last_position),
    ]
    if before is not None:
        wanted.append(thread_messages.c.timestamp < before)
    rows = conn.execute(
        select(thread_messages.c.role, thread_messages.c.message, thread_messages.c.timestamp)
        .where(*wanted)
        .order_by(thread_messages.c.position.desc())
        .limit(limit + 1)
    ).all()
    newest = [ThreadMessage(row.role, row.message, row.timestamp) for row in rows[:limit]]
    return newest[::-1], len(rows) > limit


def delete_thread(conn: Connection, thread_id: str) -> None:
    """Forget a thread with all its namespaces."""
    conn.execute(delete(thread_messages).where(thread_messages.c.thread_id == thread_id))
    conn.execute(delete(checkpoints).where(checkpoints.c.thread_id == thread_id))

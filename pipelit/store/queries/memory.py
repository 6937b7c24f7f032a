"""What agents remember: listed and deleted here, written by runs. Contract: memory.md."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select

from pipelit.store.schema import (
    checkpoints,
    episodes,
    facts,
    memory_users,
    procedures,
    thread_messages,
)


class FactRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something an agent knows. `user_id` is the canonical id of a memory user."""

    id: str
    scope: str
    agent_id: str | None
    user_id: str | None
    key: str
    value: Any
    fact_type: str
    confidence: float
    times_confirmed: int
    access_count: int
    created_at: datetime
    updated_at: datetime


class EpisodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """How one execution went."""

    id: str
    agent_id: str
    user_id: str | None
    trigger_type: str
    success: bool
    error_code: str | None
    summary: str | None
    started_at: datetime
    ended_at: datetime | None
    duration_ms: int | None
    created_at: datetime


class ProcedureRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something an agent knows how to do."""

    id: str
    agent_id: str
    name: str
    description: str
    procedure_type: str
    times_used: int
    times_succeeded: int
    times_failed: int
    is_active: bool
    created_at: datetime


class MemoryUserRow(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whom agents met on a channel."""

    id: str
    canonical_id: str
    display_name: str | None
    telegram_id: str | None
    email: str | None
    total_conversations: int
    last_seen_at: datetime
    created_at: datetime


class CheckpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored version of one namespace of a thread. `blob_size` in bytes."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    step: int
    source: str
    blob_size: int


_RowT = TypeVar("_RowT", bound=msgspec.Struct)


def list_facts(
    conn: Connection, *, scope: str | None, fact_type: str | None, limit: int, offset: int
) -> tuple[Sequence[FactRow], int]:
    """Return a page of the facts that match, last changed first, and how many there are."""
    wanted = _equal((facts.c.scope, scope), (facts.c.fact_type, fact_type))
    order = (facts.c.updated_at.desc(), facts.c.id.desc())
    return _page(conn, FactRow, facts, wanted, order, limit=limit, offset=offset)


def list_episodes(
    conn: Connection, *, agent_id: str | None, limit: int, offset: int
) -> tuple[Sequence[EpisodeRow], int]:
    """Return a page of the episodes that match, last started first, and how many there are."""
    wanted = _equal((episodes.c.agent_id, agent_id))
    order = (episodes.c.started_at.desc(), episodes.c.id.desc())
    return _page(conn, EpisodeRow, episodes, wanted, order, limit=limit, offset=offset)


def list_procedures(
    conn: Connection, *, agent_id: str | None, limit: int, offset: int
) -> tuple[Sequence[ProcedureRow], int]:
    """Return a page of the procedures that match, newest first, and how many there are."""
    wanted = _equal((procedures.c.agent_id, agent_id))
    order = (procedures.c.created_at.desc(), procedures.c.id.desc())
    return _page(conn, ProcedureRow, procedures, wanted, order, limit=limit, offset=offset)


def list_users(conn: Connection, *, limit: int, offset: int) -> tuple[Sequence[MemoryUserRow], int]:
    """Return a page of the memory users, last seen first, and how many there are."""
    order = (memory_users.c.last_seen_at.desc(), memory_users.c.id.desc())
    return _page(conn, MemoryUserRow, memory_users, [], order, limit=limit, offset=offset)


def list_checkpoints(
    conn: Connection, *, thread_id: str | None, limit: int, offset: int
) -> tuple[Sequence[CheckpointRow], int]:
    """Return a page of the checkpoints that match, newest first, and how many there are."""
    wanted = _equal((checkpoints.c.thread_id, thread_id))
    order = (checkpoints.c.checkpoint_id.desc(),)  # its text order is the order of creation
    return _page(conn, CheckpointRow, checkpoints, wanted, order, limit=limit, offset=offset)


def delete_facts(conn: Connection, ids: Collection[str]) -> None:
    """Delete those of *ids* that exist."""
    conn.execute(delete(facts).where(facts.c.id.in_(ids)))


def delete_episodes(conn: Connection, ids: Collection[str]) -> None:
    """Delete those of *ids* that exist."""
    conn.execute(delete(episodes).where(episodes.c.id.in_(ids)))


def delete_procedures(conn: Connection, ids: Collection[str]) -> None:
    """Delete those of *ids* that exist."""
    conn.execute(delete(procedures).where(procedures.c.id.in_(ids)))


def delete_users(conn: Connection, ids: Collection[str]) -> None:
    """Delete those of *ids* that exist; facts and episodes that name them stay."""
    conn.execute(delete(memory_users).where(memory_users.c.id.in_(ids)))


def delete_checkpoints(
    conn: Connection, *, thread_ids: Collection[str], checkpoint_ids: Collection[str]
) -> None:
    """Delete these versions and all versions of these threads.

    The newest version that is left is the state: messages that only deleted ones listed go too,
    so that the next version does not list them again.
    """
    doomed = or_(
        checkpoints.c.thread_id.in_(thread_ids), checkpoints.c.checkpoint_id.in_(checkpoint_ids)
    )
    places = conn.execute(
        select(checkpoints.c.thread_id, checkpoints.c.checkpoint_ns).where(doomed).distinct()
    ).all()
    conn.execute(delete(checkpoints).where(doomed))
    for thread_id, namespace in places:
        _forget_unlisted(conn, thread_id, namespace)


def _forget_unlisted(conn: Connection, thread_id: str, namespace: str) -> None:
    """Delete the messages of a namespace that come after everything its versions list."""
    last = conn.scalar(
        select(func.max(checkpoints.c.last_position)).where(
            checkpoints.c.thread_id == thread_id, checkpoints.c.checkpoint_ns == namespace
        )
    )
    conn.execute(
        delete(thread_messages).where(
            thread_messages.c.thread_id == thread_id,
            thread_messages.c.checkpoint_ns == namespace,
            thread_messages.c.position > (last or 0),
        )
    )


def _equal(*pairs: tuple[ColumnElement[Any], str | None]) -> list[ColumnElement[bool]]:
    """Return the conditions of those filters that are given."""
    return [column == value for column, value in pairs if value is not None]


def _page(
    conn: Connection,
    kind: type[_RowT],
    table: Table,
    wanted: Sequence[ColumnElement[bool]],
    order: Sequence[ColumnElement[Any]],
    *,
    limit: int,
    offset: int,
) -> tuple[list[_RowT], int]:
    total = conn.scalar(select(func.count()).select_from(table).where(*wanted)) or 0
    columns = [table.c[name] for name in kind.__struct_fields__]
    page = select(*columns).where(*wanted).order_by(*order).limit(limit).offset(offset)
    return [kind(**row) for row in conn.execute(page).mappings()], total

"""Epics: containers of tasks with a budget. Contract: epics.md."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from pipelit.store.queries.tags import has_any
from pipelit.store.schema import epics


class EpicRow(msgspec.Struct, frozen=True, kw_only=True):
    """An epic as stored. Money is micro-dollars."""

    id: str
    title: str
    description: str
    tags: list[str]
    created_by_node_id: str | None
    workflow_id: int | None
    user_id: int | None
    status: str
    priority: int
    budget_tokens: int | None
    budget_micros: int | None
    spent_tokens: int
    spent_micros: int
    agent_overhead_tokens: int
    agent_overhead_micros: int
    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    result_summary: str | None


_COLUMNS = tuple(epics.c[name] for name in EpicRow.__struct_fields__)


def find_epic(conn: Connection, epic_id: str) -> EpicRow | None:
    """Return the epic *epic_id*."""
    row = conn.execute(select(*_COLUMNS).where(epics.c.id == epic_id)).mappings().first()
    return None if row is None else EpicRow(**row)


def find_epic_of_call(conn: Connection, dedupe_key: str) -> EpicRow | None:
    """Return the epic that a tool call has made."""
    wanted = epics.c.dedupe_key == dedupe_key
    row = conn.execute(select(*_COLUMNS).where(wanted)).mappings().first()
    return None if row is None else EpicRow(**row)


def search_epics(
    conn: Connection,
    owners: Collection[int],
    *,
    text: str,
    tags: Collection[str],
    status: str | None,
    limit: int,
) -> Sequence[EpicRow]:
    """Return the newest epics of *owners* that match.

    Args:
        text: in title or description, in any case; "" matches all.
        tags: one of them is enough; none match all.
    """
    wanted: list[ColumnElement[bool]] = [epics.c.user_id.in_(owners)]
    if text:
        in_title = epics.c.title.icontains(text, autoescape=True)
        wanted.append(or_(in_title, epics.c.description.icontains(text, autoescape=True)))
    if tags:
        wanted.append(has_any(conn, epics.c.tags, tags))
    if status is not None:
        wanted.append(epics.c.status == status)
    newest = (epics.c.created_at.desc(), epics.c.id.desc())
    rows = conn.execute(select(*_COLUMNS).where(*wanted).order_by(*newest).limit(limit))
    return [EpicRow(**row) for row in rows.mappings()]


def list_epics(
    conn: Connection,
    *,
    status: str | None,
    tags: Collection[str],
    limit: int,
    offset: int,
) -> tuple[Sequence[EpicRow], int]:
    """Return a page of the epics that match, newest first, and how many there are."""
    wanted: list[ColumnElement[bool]] = []
    if status is not None:
        wanted.append(epics.c.status == status)
    if tags:
        wanted.append(has_any(conn, epics.c.tags, tags))
    total = conn.scalar(select(func.count()).select_from(epics).where(*wanted)) or 0
    newest = select(*_COLUMNS).where(*wanted).order_by(epics.c.created_at.desc(), epics.c.id.desc())
    rows = conn.execute(newest.limit(limit).offset(offset)).mappings()
    return [EpicRow(**row) for row in rows], total


def insert_epic(conn: Connection, values: Mapping[str, Any]) -> None:
    """Store an epic."""
    conn.execute(insert(epics).values(**values))


def update_epic(conn: Connection, epic_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of an epic."""
    conn.execute(update(epics).where(epics.c.id == epic_id).values(**values))


def delete_epics(conn: Connection, ids: Collection[str]) -> Sequence[str]:
    """Delete those of *ids* that exist, with their tasks; return their ids, oldest first."""
    there = select(epics.c.id).where(epics.c.id.in_(ids)).order_by(epics.c.created_at, epics.c.id)
    doomed = list(conn.scalars(there))
    if doomed:
        conn.execute(delete(epics).where(epics.c.id.in_(doomed)))
    return doomed

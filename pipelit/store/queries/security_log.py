"""The audit log: security-relevant acts and refusals, bounded. Contract: operations.md §7.

Refusals are counted apart: who may only be refused cannot push out what was done.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from pipelit.store.schema import audit_log, users

Outcome = Literal["done", "refused", "unknown"]

TRIM_EVERY = 100
"""Entries between two looks at the limit: by so many the log may exceed it."""


class NewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An act to be kept. `username` is what the caller claims while `user_id` is None."""

    kind: str
    outcome: Outcome
    user_id: int | None = None
    username: str = ""
    key_id: int | None = None
    peer: str = ""
    request_id: str = ""
    subject: dict[str, Any] = {}
    """What it was done to: ids, names of fields, never a value that could be secret."""


class Entry(NewEntry, frozen=True, kw_only=True):
    """An act as it is kept."""

    id: int
    created_at: datetime


_COLUMNS = tuple(audit_log.c[name] for name in Entry.__struct_fields__)


def insert_entry(
    conn: Connection, entry: NewEntry, *, created_at: datetime, keep: int | None = None
) -> None:
    """Keep *entry*, and now and then drop the oldest beyond *keep* of its outcome.

    A name that nobody has is not kept: people type passwords into the wrong field.
    """
    values = msgspec.structs.asdict(entry) | {"created_at": created_at}
    if entry.user_id is None and entry.username:
        values["user_id"] = conn.scalar(
            select(users.c.id).where(users.c.username == entry.username)
        )
        values["username"] = "" if values["user_id"] is None else entry.username
    made = conn.execute(insert(audit_log).values(values).returning(audit_log.c.id)).scalar_one()
    if keep is not None and made % TRIM_EVERY == 0:
        _trim(conn, entry.outcome, keep)


def list_entries(
    conn: Connection, *, kind: str | None, username: str | None, limit: int, offset: int
) -> tuple[Sequence[Entry], int]:
    """Return a page of the entries that match, newest first, and how many match."""
    wanted = []
    if kind is not None:
        wanted.append(audit_log.c.kind == kind)
    if username is not None:
        wanted.append(audit_log.c.username == username)
    total = conn.scalar(select(func.count()).select_from(audit_log).where(*wanted)) or 0
    page = select(*_COLUMNS).where(*wanted).order_by(audit_log.c.id.desc())
    rows = conn.execute(page.limit(limit).offset(offset)).mappings()
    return [Entry(**row) for row in rows], total


def _trim(conn: Connection, outcome: Outcome, keep: int) -> None:
    of_outcome = audit_log.c.outcome == outcome
    newest_gone = conn.scalar(
        select(audit_log.c.id)
        .where(of_outcome)
        .order_by(audit_log.c.id.desc())
        .limit(1)
        .offset(keep)
    )
    if newest_gone is not None:
        conn.execute(delete(audit_log).where(of_outcome, audit_log.c.id <= newest_gone))

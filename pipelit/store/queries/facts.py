"""What runs read and write of the shared memory; lists and deletes for people are in `memory`.

Contract: engine.md §30, node-types.md §9.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    func,
    insert,
    or_,
    select,
    type_coerce,
    update,
)

from pipelit.store.schema import episodes, facts, memory_users, procedures

GLOBAL = "global"
"""The scope of facts, and the `agent_id` of episodes and procedures, that are everybody's."""

_MAX_QUERY_CHARS = 1000
_ESCAPE = "!"


class KnownFact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact as a run reads it."""

    key: str
    value: Any
    confidence: float
    fact_type: str


class NewFact(msgspec.Struct, frozen=True, kw_only=True):
    """A global fact to store. `id` counts only if the key is new."""

    id: str
    key: str
    value: Any
    fact_type: str


class KnownProcedure(msgspec.Struct, frozen=True, kw_only=True):
    """A procedure as a run reads it."""

    name: str
    description: str


class PastEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """How an earlier run went."""

    summary: str | None
    success: bool
    started_at: datetime


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who came by. `id` counts only if the canonical id is new."""

    id: str
    canonical_id: str
    display_name: str | None


class Acquaintance(msgspec.Struct, frozen=True, kw_only=True):
    """A memory user after a visit. `is_new`: there was no earlier conversation."""

    id: str
    is_new: bool
    display_name: str | None
    preferences: Any
    total_conversations: int
    first_seen_at: datetime
    facts: tuple[KnownFact, ...]
    history: tuple[PastEpisode, ...]


def find_fact(conn: Connection, key: str, *, now: datetime) -> KnownFact | None:
    """Return the global fact with exactly this key, and count the reading."""
    found = _read_facts(conn, [facts.c.key == key], _newest_first(), limit=1, now=now)
    return found[0] if found else None


def newest_facts(
    conn: Connection, *, limit: int, min_confidence: float, now: datetime
) -> Sequence[KnownFact]:
    """Return global facts, the last changed first, and count the reading."""
    sure = facts.c.confidence >= min_confidence
    return _read_facts(conn, [sure], _newest_first(), limit=limit, now=now)


def search_facts(
    conn: Connection, query: str, *, limit: int, min_confidence: float, now: datetime
) -> Sequence[KnownFact]:
    """Return the global facts whose key or JSON text holds *query*, and count the reading."""
    wanted = [
        facts.c.confidence >= min_confidence,
        _holds(query, facts.c.key, type_coerce(facts.c.value, Text)),
    ]
    order = (facts.c.confidence.desc(), *_newest_first())
    return _read_facts(conn, wanted, order, limit=limit, now=now)


def set_fact(
    conn: Connection, fact: NewFact, *, overwrite: bool, now: datetime
) -> Literal["created", "updated", "skipped"]:
    """Store a global fact under its key, or change the one that is there."""
    there = select(facts.c.id).where(facts.c.scope == GLOBAL, facts.c.key == fact.key)
    known_id = conn.scalar(there.order_by(*_newest_first()).limit(1))
    if known_id is None:
        values = {**msgspec.structs.asdict(fact), "scope": GLOBAL}
        conn.execute(insert(facts).values(**values, created_at=now, updated_at=now))
        return "created"
    if not overwrite:
        return "skipped"
    change = {
        "value": fact.value,
        "times_confirmed": facts.c.times_confirmed + 1,
        "updated_at": now,
    }
    conn.execute(update(facts).where(facts.c.id == known_id).values(change))
    return "updated"


def search_procedures(
    conn: Connection, query: str, *, agent_id: str, limit: int
) -> Sequence[KnownProcedure]:
    """Return active procedures, own and global, that speak of *query*, the most proven first."""
    statement = (
        select(procedures.c.name, procedures.c.description)
        .where(
            procedures.c.agent_id.in_((agent_id, GLOBAL)),
            procedures.c.is_active,
            _holds(query, procedures.c.name, procedures.c.description),
        )
        .order_by(procedures.c.times_succeeded.desc(), procedures.c.id)
        .limit(limit)
    )
    return [KnownProcedure(**row) for row in conn.execute(statement).mappings()]


def search_episodes(conn: Connection, query: str, *, agent_id: str, limit: int) -> Sequence[str]:
    """Return summaries of episodes, own and global, that hold *query*, newest first."""
    statement = (
        select(episodes.c.summary)
        .where(
            episodes.c.agent_id.in_((agent_id, GLOBAL)),
            episodes.c.summary.is_not(None),
            _holds(query, episodes.c.summary),
        )
        .order_by(episodes.c.started_at.desc(), episodes.c.id)
        .limit(limit)
    )
    return [str(summary) for summary in conn.scalars(statement)]


def meet(
    conn: Connection,
    visitor: Visitor,
    *,
    agent_id: str,
    now: datetime,
    max_facts: int,
    max_history: int,
) -> Acquaintance:
    """Find or make the memory user, count the conversation, and return what is known."""
    user = memory_users.c
    mine = user.canonical_id == visitor.canonical_id
    change = {"total_conversations": user.total_conversations + 1, "last_seen_at": now}
    if visitor.display_name is not None:
        change["display_name"] = visitor.display_name
    if not conn.execute(update(memory_users).where(mine).values(change)).rowcount:
        values = {**msgspec.structs.asdict(visitor), "total_conversations": 1}
        conn.execute(
            insert(memory_users).values(
                **values, first_seen_at=now, last_seen_at=now, created_at=now
            )
        )
    columns = (
        user.id,
        user.display_name,
        user.preferences,
        user.total_conversations,
        user.first_seen_at,
    )
    row = conn.execute(select(*columns).where(mine)).mappings().one()
    return Acquaintance(
        **row,
        is_new=row["total_conversations"] == 1,
        facts=_facts_about(conn, visitor.canonical_id, limit=max_facts),
        history=_history_with(conn, visitor.canonical_id, agent_id, limit=max_history),
    )


def _facts_about(conn: Connection, canonical_id: str, *, limit: int) -> tuple[KnownFact, ...]:
    statement = (
        select(*(facts.c[name] for name in KnownFact.__struct_fields__))
        .where(facts.c.scope == "user", facts.c.user_id == canonical_id)
        .order_by(facts.c.access_count.desc(), *_newest_first())
        .limit(limit)
    )
    return tuple(KnownFact(**row) for row in conn.execute(statement).mappings())


def _history_with(
    conn: Connection, canonical_id: str, agent_id: str, *, limit: int
) -> tuple[PastEpisode, ...]:
    statement = (
        select(*(episodes.c[name] for name in PastEpisode.__struct_fields__))
        .where(
            episodes.c.agent_id == agent_id,
            episodes.c.user_id == canonical_id,
            episodes.c.ended_at.is_not(None),
        )
        .order_by(episodes.c.started_at.desc(), episodes.c.id)
        .limit(limit)
    )
    return tuple(PastEpisode(**row) for row in conn.execute(statement).mappings())


def _read_facts(
    conn: Connection,
    wanted: Sequence[ColumnElement[bool]],
    order: Sequence[ColumnElement[Any]],
    *,
    limit: int,
    now: datetime,
) -> list[KnownFact]:
    columns = [facts.c[name] for name in ("id", *KnownFact.__struct_fields__)]
    statement = select(*columns).where(facts.c.scope == GLOBAL, *wanted).order_by(*order)
    rows = [dict(row) for row in conn.execute(statement.limit(limit)).mappings()]
    if rows:
        ids = [row.pop("id") for row in rows]
        counted = {"access_count": facts.c.access_count + 1, "last_accessed": now}
        conn.execute(update(facts).where(facts.c.id.in_(ids)).values(counted))
    return [KnownFact(**row) for row in rows]


def _newest_first() -> tuple[ColumnElement[Any], ...]:
    return (facts.c.updated_at.desc(), facts.c.id.desc())


def _holds(query: str, *columns: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that one of *columns* holds *query*, in any case (engine.md §30)."""
    pattern = func.lower(like_pattern(query))
    return or_(*(func.lower(column).like(pattern, escape=_ESCAPE) for column in columns))


def like_pattern(query: str) -> str:
    """Return the LIKE pattern of a search: spaces, `_` and `-` match any text."""
    # SQLite refuses long patterns; a longer query could hardly be found anyway.
    words = re.split(r"[\s_-]+", query.strip()[:_MAX_QUERY_CHARS])
    return "%" + "%".join(re.sub(r"[%!]", rf"{_ESCAPE}\g<0>", word) for word in words) + "%"

"""Agent users: accounts that running workflows make. Contract: users.md."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, delete, func, select, update

from pipelit.store.schema import (
    api_keys,
    credentials,
    epics,
    schedules,
    users,
    workflows,
    workspaces,
)


class AgentRow(msgspec.Struct, frozen=True, kw_only=True):
    """An agent user with what is shown of its newest active key."""

    id: int
    username: str
    purpose: str
    key_suffix: str | None
    created_at: datetime
    created_by_id: int | None
    created_by: str | None
    """Name of the creator, while there is one."""


_IS_AGENT = users.c.kind == "agent"
_OWNING = (
    credentials.c.created_by_id,
    schedules.c.user_id,
    workspaces.c.owner_id,
    epics.c.user_id,
)


def find_agents(conn: Connection, ids: Collection[int]) -> list[AgentRow]:
    """Return those of *ids* that are agent users, in no order."""
    return [
        AgentRow(**row) for row in conn.execute(_select().where(users.c.id.in_(ids))).mappings()
    ]


def list_agents(conn: Connection, *, limit: int, offset: int) -> tuple[Sequence[AgentRow], int]:
    """Return a page of all agent users, newest first, and how many there are."""
    total = conn.scalar(select(func.count()).select_from(users).where(_IS_AGENT)) or 0
    newest_first = (users.c.created_at.desc(), users.c.id.desc())
    page = _select().order_by(*newest_first).limit(limit).offset(offset)
    return [AgentRow(**row) for row in conn.execute(page).mappings()], total


def delete_agents(conn: Connection, agents: Collection[AgentRow], *, heir_id: int) -> list[int]:
    """Delete agent users and their keys; what each owned passes to its creator.

    Args:
        heir_id: inherits from those without a creator.

    Returns:
        The ids of the keys that are gone.
    """
    ids = [agent.id for agent in agents]
    gone = list(conn.scalars(select(api_keys.c.id).where(api_keys.c.user_id.in_(ids))))
    # The youngest first: what passes to a creator who is deleted too passes on with the rest.
    for agent in sorted(agents, key=lambda agent: agent.id, reverse=True):
        _pass_on(conn, agent.id, heir_id if agent.created_by_id is None else agent.created_by_id)
    conn.execute(delete(api_keys).where(api_keys.c.id.in_(gone)))
    conn.execute(delete(users).where(users.c.id.in_(ids)))
    return gone


def _pass_on(conn: Connection, agent_id: int, heir_id: int) -> None:
    owned = update(workflows).where(workflows.c.owner_id == agent_id)
    # The heir's own default stays the only one.
    conn.execute(owned.values(owner_id=heir_id, is_default=False))
    for column in _OWNING:
        passed = update(column.table).where(column == agent_id)
        conn.execute(passed.values({column.name: heir_id}))


def _select() -> Select[Any]:
    creators = users.alias("creators")
    newest_key = (
        select(api_keys.c.suffix)
        .where(api_keys.c.user_id == users.c.id, api_keys.c.is_active.is_(True))
        .order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
        .limit(1)
        .correlate(users)
        .scalar_subquery()
    )
    return (
        select(
            users.c.id,
            users.c.username,
            users.c.purpose,
            newest_key.label("key_suffix"),
            users.c.created_at,
            users.c.created_by_id,
            creators.c.username.label("created_by"),
        )
        .select_from(users.outerjoin(creators, creators.c.id == users.c.created_by_id))
        .where(_IS_AGENT)
    )

"""Agent users: accounts that running workflows make. Contract: users.md."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, delete, func, insert, or_, select, update

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


class AccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a running agent may learn of an account; nothing secret shows in `repr`."""

    id: int
    username: str
    kind: str
    is_active: bool
    purpose: str
    created_by_id: int | None
    totp_secret: str | None
    """Encrypted."""

    def __repr__(self) -> str:
        return f"AccountRow(id={self.id}, username={self.username!r})"


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


def find_account(conn: Connection, username: str) -> AccountRow | None:
    """Return the account of this name, whoever's it is."""
    columns = [users.c[name] for name in AccountRow.__struct_fields__]
    row = conn.execute(select(*columns).where(users.c.username == username)).mappings().first()
    return None if row is None else AccountRow(**row)


def insert_agent(
    conn: Connection,
    *,
    username: str,
    purpose: str,
    created_by_id: int,
    totp_secret: str,
    created_at: datetime,
) -> int:
    """Store an agent user, who cannot log in; return its id. *totp_secret* is encrypted."""
    statement = insert(users).values(
        username=username,
        kind="agent",
        role="normal",
        purpose=purpose,
        created_by_id=created_by_id,
        totp_secret=totp_secret,
        mfa_enabled=True,
        created_at=created_at,
    )
    return int(conn.execute(statement.returning(users.c.id)).scalar_one())


def find_sealed_key(conn: Connection, user_id: int, *, now: datetime) -> str | None:
    """Return the newest key of an agent user that can be shown again and still counts."""
    statement = (
        select(api_keys.c.encrypted_key)
        .where(
            api_keys.c.user_id == user_id,
            api_keys.c.is_active.is_(True),
            api_keys.c.encrypted_key.is_not(None),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now),
        )
        .order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
        .limit(1)
    )
    return conn.scalar(statement)


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

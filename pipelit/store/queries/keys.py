"""API keys: only their SHA-256, first and last characters are stored. Contract: README.md §2."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, insert, select, update

from pipelit.store.schema import api_keys, users


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key about to be stored."""

    name: str
    key_hash: str
    prefix: str
    suffix: str
    created_at: datetime
    expires_at: datetime | None = None


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key with the user it stands for."""

    id: int
    is_active: bool
    last_used_at: datetime | None
    expires_at: datetime | None
    user_id: int
    username: str
    role: Literal["admin", "normal"]
    kind: str
    user_is_active: bool
    created_by_id: int | None


_COLUMNS = (
    api_keys.c.id,
    api_keys.c.is_active,
    api_keys.c.last_used_at,
    api_keys.c.expires_at,
    api_keys.c.user_id,
    users.c.username,
    users.c.role,
    users.c.kind,
    users.c.is_active.label("user_is_active"),
    users.c.created_by_id,
)


def find_key(conn: Connection, key_hash: str) -> KeyRow | None:
    """Return the key with this hash, revoked or not."""
    return _find(conn, api_keys.c.key_hash == key_hash)


def find_key_by_id(conn: Connection, key_id: int) -> KeyRow | None:
    """Return the key *key_id*, revoked or not."""
    return _find(conn, api_keys.c.id == key_id)


def insert_key(conn: Connection, user_id: int, key: NewKey) -> int:
    """Store *key* for the user; return its id."""
    statement = insert(api_keys).values(user_id=user_id, **msgspec.structs.asdict(key))
    return int(conn.execute(statement.returning(api_keys.c.id)).scalar_one())


def touch_key(conn: Connection, key_id: int, used_at: datetime) -> None:
    """Note that the key was used."""
    conn.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=used_at))


def revoke_oldest(conn: Connection, user_id: int, *, name: str, keep: int) -> Sequence[int]:
    """Revoke all but the *keep* newest active keys of that name; return their ids."""
    surplus = (
        select(api_keys.c.id)
        .where(
            api_keys.c.user_id == user_id, api_keys.c.name == name, api_keys.c.is_active.is_(True)
        )
        .order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
        .offset(keep)
    )
    revoked = list(conn.scalars(surplus))
    if revoked:
        statement = update(api_keys).where(api_keys.c.id.in_(revoked)).values(is_active=False)
        conn.execute(statement)
    return revoked


def _find(conn: Connection, condition: ColumnElement[bool]) -> KeyRow | None:
    statement = select(*_COLUMNS).join_from(api_keys, users).where(condition)
    row = conn.execute(statement).mappings().first()
    return None if row is None else KeyRow(**row)

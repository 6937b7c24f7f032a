"""API keys: only their SHA-256, first and last characters are stored. Contract: README.md §2."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, select, update

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


def insert_key(conn: Connection, user_id: int, key: NewKey, *, sealed: str | None = None) -> int:
    """Store *key* for the user; return its id.

    Args:
        sealed: the key encrypted, only where it has to be shown again.
    """
    values = {"user_id": user_id, "encrypted_key": sealed, **msgspec.structs.asdict(key)}
    return int(conn.execute(insert(api_keys).values(values).returning(api_keys.c.id)).scalar_one())


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


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as its user may see it again."""

    id: int
    name: str
    prefix: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    is_active: bool


def list_keys(conn: Connection, user_id: int) -> list[ApiKey]:
    """Return all keys of the user, newest first, revoked ones too."""
    columns = [api_keys.c[name] for name in ApiKey.__struct_fields__]
    statement = (
        select(*columns)
        .where(api_keys.c.user_id == user_id)
        .order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
    )
    return [ApiKey(**row) for row in conn.execute(statement).mappings()]


def count_active(conn: Connection, user_id: int) -> int:
    """Return how many keys of the user are not revoked."""
    active = (api_keys.c.user_id == user_id, api_keys.c.is_active.is_(True))
    return conn.scalar(select(func.count()).select_from(api_keys).where(*active)) or 0


def has_key(conn: Connection, user_id: int, key_id: int) -> bool:
    """Whether the key is one of the user's, revoked or not."""
    own = (api_keys.c.user_id == user_id, api_keys.c.id == key_id)
    return conn.scalar(select(api_keys.c.id).where(*own)) is not None


def list_active_ids(conn: Connection, user_id: int) -> list[int]:
    """Return the ids of the user's keys that are not revoked."""
    active = (api_keys.c.user_id == user_id, api_keys.c.is_active.is_(True))
    return list(conn.scalars(select(api_keys.c.id).where(*active)))


def revoke(conn: Connection, user_id: int, *conditions: ColumnElement[bool]) -> list[int]:
    """Revoke the user's active keys that meet *conditions*; return their ids."""
    active = (api_keys.c.user_id == user_id, api_keys.c.is_active.is_(True))
    revoked = list(conn.scalars(select(api_keys.c.id).where(*active, *conditions)))
    if revoked:
        conn.execute(update(api_keys).where(api_keys.c.id.in_(revoked)).values(is_active=False))
    return revoked


def revoke_key(conn: Connection, user_id: int, key_id: int) -> list[int]:
    """Revoke one key of the user; return its id if it was active."""
    return revoke(conn, user_id, api_keys.c.id == key_id)


def revoke_named(conn: Connection, user_id: int, name: str, *, but: int) -> list[int]:
    """Revoke the user's active keys of that name except the key *but*; return their ids."""
    return revoke(conn, user_id, api_keys.c.name == name, api_keys.c.id != but)


def _find(conn: Connection, condition: ColumnElement[bool]) -> KeyRow | None:
    statement = select(*_COLUMNS).join_from(api_keys, users).where(condition)
    row = conn.execute(statement).mappings().first()
    return None if row is None else KeyRow(**row)

"""People and agent users. Contract: auth.md, beyond.md §7–8."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipelit.store.schema import api_keys, users

Role = Literal["admin", "normal"]


class UsernameTaken(Exception):
    """Another user has the name."""


class UserRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the product asks of a user. The password's hash stays out of `repr`."""

    id: int
    username: str
    password_hash: str | None
    """None: this user cannot log in."""
    role: Role
    is_active: bool
    mfa_enabled: bool

    def __repr__(self) -> str:
        return f"UserRow(id={self.id}, username={self.username!r})"


_COLUMNS = tuple(users.c[name] for name in UserRow.__struct_fields__)


def has_users(conn: Connection) -> bool:
    """Whether anybody exists: false until setup."""
    return bool(conn.scalar(select(exists(select(users.c.id)))))


def find_user(conn: Connection, user_id: int) -> UserRow | None:
    """Return the user *user_id*, disabled or not."""
    row = conn.execute(select(*_COLUMNS).where(users.c.id == user_id)).mappings().first()
    return None if row is None else UserRow(**row)


def find_user_by_name(conn: Connection, username: str) -> UserRow | None:
    """Return the user named exactly *username*; names are case-sensitive."""
    row = conn.execute(select(*_COLUMNS).where(users.c.username == username)).mappings().first()
    return None if row is None else UserRow(**row)


def insert_person(
    conn: Connection,
    *,
    username: str,
    password_hash: str,
    role: Role,
    created_at: datetime,
    first_name: str = "",
    last_name: str = "",
) -> int:
    """Create a human account; return its id.

    Raises:
        UsernameTaken: the unit has to end with it.
    """
    statement = insert(users).values(
        username=username,
        password_hash=password_hash,
        role=role,
        created_at=created_at,
        first_name=first_name,
        last_name=last_name,
    )
    try:
        return int(conn.execute(statement.returning(users.c.id)).scalar_one())
    except IntegrityError as error:
        raise UsernameTaken from error


class ProfileRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of a user."""

    id: int
    username: str
    role: Role
    kind: str
    first_name: str
    last_name: str
    created_at: datetime
    mfa_enabled: bool
    is_active: bool
    key_count: int
    """Keys not revoked."""


def find_profile(conn: Connection, user_id: int) -> ProfileRow | None:
    """Return the user *user_id* as it is shown, whatever its kind."""
    row = conn.execute(_select_profiles(users.c.id == user_id)).mappings().first()
    return None if row is None else ProfileRow(**row)


def list_profiles(conn: Connection, *, limit: int, offset: int) -> tuple[Sequence[ProfileRow], int]:
    """Return a page of all users of every kind, oldest first, and how many there are."""
    total = conn.scalar(select(func.count()).select_from(users)) or 0
    page = _select_profiles().order_by(users.c.id).limit(limit).offset(offset)
    return [ProfileRow(**row) for row in conn.execute(page).mappings()], total


def update_user(conn: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Change columns of a user."""
    conn.execute(update(users).where(users.c.id == user_id).values(**values))


def lock_user(conn: Connection, user_id: int) -> bool:
    """Keep other transactions from changing the user; return False if there is none."""
    statement = select(users.c.id).where(users.c.id == user_id).with_for_update()
    return conn.scalar(statement) is not None


def is_last_admin(conn: Connection, user_id: int) -> bool:
    """Whether the user is the only active admin. Holds until the transaction ends.

    All active admins are locked, in one order: of two transactions that each take one of two away,
    the second one sees what the first one did.
    """
    admins = (
        select(users.c.id)
        .where(users.c.role == "admin", users.c.kind == "human", users.c.is_active.is_(True))
        .order_by(users.c.id)
        .with_for_update()
    )
    return list(conn.scalars(admins)) == [user_id]


_COUNTED_KEYS = (
    select(func.count())
    .where(api_keys.c.user_id == users.c.id, api_keys.c.is_active.is_(True))
    .correlate(users)
    .scalar_subquery()
    .label("key_count")
)


def _select_profiles(*conditions: ColumnElement[bool]) -> Select[Any]:
    columns = [users.c[name] for name in ProfileRow.__struct_fields__ if name != "key_count"]
    return select(*columns, _COUNTED_KEYS).where(*conditions)

"""People and agent users. Contract: auth.md, users.md."""

from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, exists, insert, select

from pipelit.store.schema import users

Role = Literal["admin", "normal"]


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
    conn: Connection, *, username: str, password_hash: str, role: Role, created_at: datetime
) -> int:
    """Create a human account; return its id. The name must be free."""
    statement = insert(users).values(
        username=username, password_hash=password_hash, role=role, created_at=created_at
    )
    return int(conn.execute(statement.returning(users.c.id)).scalar_one())

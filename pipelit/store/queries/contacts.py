"""Gateway contacts: accounts of people who only write through the message gateway.

They have no password and no key. Contract: beyond.md §4, "Execution user".
"""

from datetime import datetime
from itertools import count

import msgspec
from sqlalchemy import Connection, insert, select

from pipelit.store.schema import users

CONTACT = "contact"
MAX_USERNAME = 150


class Contact(msgspec.Struct, frozen=True):
    """An account that messages run as. `is_active`: an admin may have disabled it."""

    id: int
    is_active: bool


def find_contact(conn: Connection, external_id: str | None) -> Contact | None:
    """Return the account of an external id; None: the one that senders without an id share."""
    wanted = users.c.external_id == external_id
    if external_id is None:
        wanted = users.c.external_id.is_(None) & (users.c.kind == CONTACT)
    row = conn.execute(select(users.c.id, users.c.is_active).where(wanted)).one_or_none()
    return None if row is None else Contact(row.id, row.is_active)


def ensure_contact(
    conn: Connection, external_id: str | None, username: str, *, created_at: datetime
) -> int:
    """Return the id of a contact's account, made if there is none.

    Args:
        username: wanted; `_1`, `_2` … is appended until it is free.
    """
    found = find_contact(conn, external_id)
    if found is not None:
        return found.id
    statement = insert(users).values(
        username=_free_name(conn, username),
        kind=CONTACT,
        external_id=external_id,
        created_at=created_at,
    )
    return int(conn.execute(statement.returning(users.c.id)).scalar_one())


def _free_name(conn: Connection, wanted: str) -> str:
    name = wanted[:MAX_USERNAME]
    numbers = count(1)
    while conn.scalar(select(users.c.id).where(users.c.username == name)) is not None:
        suffix = f"_{next(numbers)}"
        name = wanted[: MAX_USERNAME - len(suffix)] + suffix
    return name

"""The second factor of a user. Secrets pass through here encrypted. Contract: auth.md, MFA."""

from typing import Any

import msgspec
from sqlalchemy import Connection, select, update

from pipelit.store.schema import users


class MfaRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a code check needs to know of a user. Nothing secret shows in `repr`."""

    id: int
    username: str
    is_active: bool
    password_hash: str | None
    mfa_enabled: bool
    totp_secret: str | None
    totp_pending: str | None
    """A secret that counts once a code of it was shown."""
    totp_last_step: int | None
    """The step of the code used last; codes up to it are void."""

    def __repr__(self) -> str:
        return f"MfaRow(id={self.id}, mfa_enabled={self.mfa_enabled})"


_COLUMNS = tuple(users.c[name] for name in MfaRow.__struct_fields__)


def find_mfa(conn: Connection, user_id: int) -> MfaRow | None:
    """Return the second factor of the user *user_id*."""
    row = conn.execute(select(*_COLUMNS).where(users.c.id == user_id)).mappings().first()
    return None if row is None else MfaRow(**row)


def find_mfa_by_name(conn: Connection, username: str) -> MfaRow | None:
    """Return the second factor of the user named exactly *username*."""
    row = conn.execute(select(*_COLUMNS).where(users.c.username == username)).mappings().first()
    return None if row is None else MfaRow(**row)


def set_pending(conn: Connection, user_id: int, sealed: str) -> bool:
    """Keep a new secret until it is verified; return False if MFA is on already."""
    wanted = (users.c.id == user_id, users.c.mfa_enabled.is_(False))
    return _changed(conn, wanted, totp_pending=sealed)


def enable(conn: Connection, old: MfaRow, *, step: int) -> bool:
    """Switch MFA on with the pending secret; return False if that is not *old*'s any more."""
    wanted = (
        users.c.id == old.id,
        users.c.mfa_enabled.is_(False),
        users.c.totp_pending == old.totp_pending,
    )
    return _changed(
        conn,
        wanted,
        mfa_enabled=True,
        totp_secret=old.totp_pending,
        totp_pending=None,
        totp_last_step=step,
    )


def use_step(conn: Connection, old: MfaRow, *, step: int) -> bool:
    """Make codes up to *step* void; return False if they are already, or the secret changed."""
    return _changed(conn, _unused(old, step), totp_last_step=step)


def disable(conn: Connection, old: MfaRow, *, step: int) -> bool:
    """Switch MFA off for a code of *step*; return False if the code is void already."""
    return _changed(conn, _unused(old, step), **_OFF)


def clear(conn: Connection, user_id: int) -> bool:
    """Switch MFA off and forget everything of it; return False if there is no such user."""
    return _changed(conn, (users.c.id == user_id,), **_OFF)


_OFF = {"mfa_enabled": False, "totp_secret": None, "totp_pending": None, "totp_last_step": None}


def _unused(old: MfaRow, step: int) -> tuple[Any, ...]:
    is_later = users.c.totp_last_step.is_(None) | (users.c.totp_last_step < step)
    return (
        users.c.id == old.id,
        users.c.mfa_enabled.is_(True),
        users.c.totp_secret == old.totp_secret,
        is_later,
    )


def _changed(conn: Connection, wanted: tuple[Any, ...], **values: Any) -> bool:
    return conn.execute(update(users).where(*wanted).values(**values)).rowcount == 1

"""Accounts: one's own profile, and everybody's for admins. Contract: beyond.md §7–8.

Nobody is ever deleted here: a disabled user keeps the row and what it owns, and loses every key.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import trio
from sqlalchemy import Connection

from pipelit.clock import Clock
from pipelit.errors import Conflict, NotFound
from pipelit.services.api_keys import KeyEvents
from pipelit.services.passwords import Passwords
from pipelit.services.principal import Principal, Role
from pipelit.services.sessions import SESSION_KEY
from pipelit.store import Store
from pipelit.store.queries import keys
from pipelit.store.queries import users as queries
from pipelit.store.queries.users import ProfileRow
from pipelit.store.writer import Hold

NOT_FOUND = "User not found."
NAME_TAKEN = "Username already exists."
NOT_HUMAN = "Not a human account."
LAST_ADMIN_STAYS_ADMIN = "Cannot demote the last admin user."
LAST_ADMIN_STAYS = "Cannot delete the last admin user."


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it is shown to its user and to admins."""

    id: int
    username: str
    role: Role
    first_name: str
    last_name: str
    created_at: datetime
    mfa_enabled: bool
    key_count: int
    """Keys not revoked."""
    is_active: bool
    is_agent: bool


class _Changed(msgspec.Struct, frozen=True):
    """What a unit did: the user as it is now, keys revoked, keys with another role."""

    user: ProfileRow
    revoked: Sequence[int] = ()
    changed: Sequence[int] = ()


class UsersService:
    """Shows and changes accounts. Whether the caller may is asked before.

    Args:
        hold: entered around work in threads, so that a test's clock waits for it.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        events: KeyEvents,
        *,
        passwords: Passwords,
        hold: Hold = nullcontext,
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._passwords = passwords
        self._hold = hold
        self._thread = trio.CapacityLimiter(1)

    async def browse(self, *, limit: int, offset: int) -> tuple[Sequence[User], int]:
        """Return a page of all users, oldest first, and how many there are."""
        rows, total = await self._store.read(
            partial(queries.list_profiles, limit=limit, offset=offset)
        )
        return [_show(row) for row in rows], total

    async def get(self, user_id: int) -> User:
        """Return one user of any kind.

        Raises:
            NotFound: there is none.
        """
        return _show(await self._store.read(partial(_require, user_id=user_id)))

    async def create(
        self,
        *,
        username: str,
        password: str,
        role: Role = "normal",
        first_name: str = "",
        last_name: str = "",
    ) -> User:
        """Make a human account.

        Raises:
            Conflict: the name is taken, also by a disabled user.
        """
        insert = partial(
            queries.insert_person,
            username=username,
            password_hash=await self._hash(password),
            role=role,
            created_at=self._clock.now(),
            first_name=first_name,
            last_name=last_name,
        )
        try:
            return _show(await self._store.write(lambda conn: _require(conn, insert(conn))))
        except queries.UsernameTaken as error:
            raise Conflict(NAME_TAKEN) from error

    async def change(self, principal: Principal, user_id: int, fields: Mapping[str, Any]) -> User:
        """Change the given *fields* of a user; one that is None stays as it is.

        A new password ends the user's sessions but the one that asks. Disabling revokes all keys.

        Args:
            fields: of `role`, `password`, `first_name`, `last_name`, `is_active`.

        Raises:
            NotFound: there is no such user.
            Conflict: the last admin would be none, or a machine's account would be a person's.
        """
        values = {name: value for name, value in fields.items() if value is not None}
        if "password" in values:
            values["password_hash"] = await self._hash(values.pop("password"))
        change = partial(_change, user_id=user_id, values=values, asking_key=principal.key_id)
        done = await self._store.write(change)
        self._announce(done)
        return _show(done.user)

    async def disable(self, user_id: int) -> None:
        """Disable a user and revoke all its keys; once more changes nothing.

        Raises:
            NotFound: there is no such user.
            Conflict: it is the last admin.
        """
        self._announce(await self._store.write(partial(_disable, user_id=user_id)))

    def _announce(self, done: _Changed) -> None:
        if done.revoked:
            self._events.revoke(done.revoked)
        if done.changed:
            self._events.change(done.changed)

    async def _hash(self, password: str) -> str:
        work: Callable[[], str] = partial(self._passwords.hash, password)
        with self._hold():
            return await trio.to_thread.run_sync(work, limiter=self._thread)


def _require(conn: Connection, user_id: int) -> ProfileRow:
    row = queries.find_profile(conn, user_id)
    if row is None:
        raise NotFound(NOT_FOUND)
    return row


def _change(
    conn: Connection, *, user_id: int, values: Mapping[str, Any], asking_key: int
) -> _Changed:
    old = _require(conn, user_id)
    if not values:
        return _Changed(old)
    if old.kind != "human" and ("password_hash" in values or values.get("role") == "admin"):
        raise Conflict(NOT_HUMAN)
    stays_admin = values.get("role", "admin") == "admin" and values.get("is_active", True)
    if not stays_admin and queries.is_last_admin(conn, user_id):
        raise Conflict(LAST_ADMIN_STAYS_ADMIN)
    queries.update_user(conn, user_id, values)
    revoked: list[int] = []
    if "password_hash" in values:
        revoked += keys.revoke_named(conn, user_id, SESSION_KEY, but=asking_key)
    if values.get("is_active") is False:
        revoked += keys.revoke(conn, user_id)
    is_new_role = values.get("role", old.role) != old.role
    changed = keys.list_active_ids(conn, user_id) if is_new_role else ()
    return _Changed(_require(conn, user_id), revoked, changed)


def _disable(conn: Connection, *, user_id: int) -> _Changed:
    old = _require(conn, user_id)
    if old.is_active and queries.is_last_admin(conn, user_id):
        raise Conflict(LAST_ADMIN_STAYS)
    queries.update_user(conn, user_id, {"is_active": False})
    return _Changed(old, keys.revoke(conn, user_id))


def _show(row: ProfileRow) -> User:
    return User(
        id=row.id,
        username=row.username,
        role=row.role,
        first_name=row.first_name,
        last_name=row.last_name,
        created_at=row.created_at,
        mfa_enabled=row.mfa_enabled,
        key_count=row.key_count,
        is_active=row.is_active,
        is_agent=row.kind == "agent",
    )

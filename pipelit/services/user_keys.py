"""API keys that people make for themselves, and admins for anybody. Contract: beyond.md §7–8."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

import msgspec
from sqlalchemy import Connection

from pipelit.clock import Clock, Ids
from pipelit.errors import BadRequest, Conflict, NotFound
from pipelit.services.api_keys import KeyEvents, describe_key
from pipelit.store import Store
from pipelit.store.queries import keys as queries
from pipelit.store.queries import users
from pipelit.store.queries.keys import ApiKey

NO_USER = "User not found."
NO_KEY = "API key not found."
IN_THE_PAST = "expires_at must be in the future."
TOO_MANY = "API key limit reached."
MAX_ACTIVE_KEYS = 100

__all__ = ["ApiKey", "NewApiKey", "UserKeysService"]


class NewApiKey(ApiKey, frozen=True, kw_only=True):
    """A key just made: the only time that it is shown whole."""

    key: str

    def __repr__(self) -> str:
        return f"NewApiKey(id={self.id}, prefix={self.prefix!r})"


class UserKeysService:
    """Lists, makes and revokes the keys of one user. Whether the caller may is asked before."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, events: KeyEvents) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._events = events

    async def list_keys(self, user_id: int) -> Sequence[ApiKey]:
        """Return all keys of the user, newest first, revoked ones too.

        Raises:
            NotFound: there is no such user.
        """

        def read(conn: Connection) -> Sequence[ApiKey]:
            if users.find_user(conn, user_id) is None:
                raise NotFound(NO_USER)
            return queries.list_keys(conn, user_id)

        return await self._store.read(read)

    async def create(
        self, user_id: int, *, name: str, expires_at: datetime | None = None
    ) -> NewApiKey:
        """Make a key for the user.

        Raises:
            NotFound: there is no such user.
            BadRequest: it would have expired already.
            Conflict: the user has as many keys as one may have.
        """
        key = self._ids.token()
        now = self._clock.now()
        new = msgspec.structs.replace(
            describe_key(key, name=name, created_at=now), expires_at=expires_at
        )

        def insert(conn: Connection) -> int:
            if not users.lock_user(conn, user_id):
                raise NotFound(NO_USER)
            if expires_at is not None and expires_at <= now:
                raise BadRequest(IN_THE_PAST)
            if queries.count_active(conn, user_id) >= MAX_ACTIVE_KEYS:
                raise Conflict(TOO_MANY)
            return queries.insert_key(conn, user_id, new)

        return NewApiKey(
            id=await self._store.write(insert),
            name=name,
            prefix=new.prefix,
            created_at=now,
            last_used_at=None,
            expires_at=expires_at,
            is_active=True,
            key=key,
        )

    async def revoke(self, user_id: int, key_id: int) -> None:
        """Revoke a key, for good; once more changes nothing.

        Raises:
            NotFound: the user has no such key.
        """
        revoked = await self._store.write(partial(_revoke, user_id=user_id, key_id=key_id))
        if revoked:
            self._events.revoke(revoked)


def _revoke(conn: Connection, *, user_id: int, key_id: int) -> Sequence[int]:
    if not queries.has_key(conn, user_id, key_id):
        raise NotFound(NO_KEY)
    return queries.revoke_key(conn, user_id, key_id)

"""Session keys: what a completed login gives. Contract: auth.md, Login key."""

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from pipelit.clock import Clock, Ids
from pipelit.services.api_keys import KeyEvents, describe_key
from pipelit.store import Store
from pipelit.store.queries import keys, users
from pipelit.store.queries.keys import NewKey

SESSION_KEY = "session"
SESSIONS_KEPT = 10


class Sessions:
    """Opens sessions. A user keeps the newest ten; older ones end at once."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, events: KeyEvents) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._events = events

    async def open(
        self, user_id: int, *, provided: Callable[[Connection], bool] = lambda _: True
    ) -> str | None:
        """Give the user a new session key.

        Args:
            provided: runs first, in the same transaction; if it says no, nothing is opened.

        Returns:
            The key, or None because it was not provided, or the user is disabled by now.
        """
        key = self._ids.token()
        new_key = describe_key(key, name=SESSION_KEY, created_at=self._clock.now())
        unit = partial(_open, user_id=user_id, key=new_key, provided=provided)
        revoked = await self._store.write(unit)
        # A write that returns was committed, and nothing is awaited before the announcement.
        if revoked is None:
            return None
        if revoked:
            self._events.revoke(revoked)
        return key


def _open(
    conn: Connection, *, user_id: int, key: NewKey, provided: Callable[[Connection], bool]
) -> tuple[int, ...] | None:
    """Insert the key; return the ids of those revoked for it, None if nothing was opened."""
    user = users.find_user(conn, user_id)
    if user is None or not user.is_active or not provided(conn):
        return None
    keys.insert_key(conn, user_id, key)
    return tuple(keys.revoke_oldest(conn, user_id, name=SESSION_KEY, keep=SESSIONS_KEPT))

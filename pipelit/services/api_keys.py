"""API keys: how they are made, what is kept of them, and who hears of their end.

Contract: README.md §2.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from weakref import WeakValueDictionary

import trio

from pipelit.store.queries.keys import NewKey


def describe_key(key: str, *, name: str, created_at: datetime) -> NewKey:
    """Build what the store keeps of *key*: its hash and its ends, never the key."""
    return NewKey(
        name=name,
        key_hash=hash_key(key),
        prefix=key[:8],
        suffix=key[-8:],
        created_at=created_at,
    )


def hash_key(key: str) -> str:
    """Return the SHA-256 by which a key is looked up.

    Keys are 256 random bits, so a fast hash is enough, and a lookup by hash compares nothing whose
    timing could tell a part of the key.
    """
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


class KeyEvents:
    """Tells whoever relies on a key that it was revoked or stands for more or less than before.

    In-process; nothing is stored. Whoever changes keys or their users in the store calls `revoke`
    or `change` right after the commit.
    """

    def __init__(self) -> None:
        self._announcements = 0
        # Weak: an event lives as long as somebody holds it.
        self._watched: WeakValueDictionary[int, trio.Event] = WeakValueDictionary()
        self._followed: WeakValueDictionary[int, trio.Event] = WeakValueDictionary()

    @property
    def announcements(self) -> int:
        """How often something was announced. Unchanged around a read: what was read still holds."""
        return self._announcements

    def watch(self, key_id: int) -> trio.Event:
        """Return the event that is set when the key is revoked from now on. Keep it to keep it."""
        return self._watched.setdefault(key_id, trio.Event())

    def follow(self, key_id: int) -> trio.Event:
        """Return the event that is set when the key is revoked, or its user changes, from now on.

        Keep it to keep it; after it was set, the next change is another event.
        """
        return self._followed.setdefault(key_id, trio.Event())

    def revoke(self, key_ids: Iterable[int]) -> None:
        """Announce that these keys are revoked, durably."""
        key_ids = tuple(key_ids)
        self.change(key_ids)
        for key_id in key_ids:
            _set(self._watched, key_id)

    def change(self, key_ids: Iterable[int]) -> None:
        """Announce that the users of these keys have another role, durably."""
        self._announcements += 1
        for key_id in key_ids:
            _set(self._followed, key_id)


def _set(events: WeakValueDictionary[int, trio.Event], key_id: int) -> None:
    event = events.pop(key_id, None)
    if event is not None:
        event.set()

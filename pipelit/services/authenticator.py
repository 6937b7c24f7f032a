"""Who presents this API key? Contract: README.md §2."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

import trio

from pipelit.clock import Clock
from pipelit.errors import Unauthenticated
from pipelit.services.api_keys import KeyEvents, hash_key
from pipelit.services.principal import Principal
from pipelit.store import Store, StoreError
from pipelit.store.queries import keys

INVALID = "Invalid or missing API key."
REVOKED = "API key has been revoked."
EXPIRED = "API key has expired."
NO_USER = "User not found."

_BETWEEN_NOTES = timedelta(minutes=1)


class _Known:
    """A key that was good when it was looked up. So it is until it changes or expires."""

    __slots__ = ("changed", "expires_at", "principal", "used_at")

    def __init__(self, row: keys.KeyRow, changed: trio.Event) -> None:
        self.principal = build_principal(row)
        self.expires_at = row.expires_at
        self.used_at = row.last_used_at
        self.changed = changed


class Authenticator:
    """Turns API keys into principals; remembers the keys used last.

    Args:
        events: where changes are announced; a revoked key is refused from then on, and another
            role counts.
        capacity: keys remembered.
    """

    def __init__(
        self, store: Store, clock: Clock, events: KeyEvents, *, capacity: int = 1024
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._capacity = capacity
        self._known: OrderedDict[str, _Known] = OrderedDict()  # the key used last is last

    async def authenticate(self, key: str) -> Principal:
        """Return who presents *key*.

        Raises:
            Unauthenticated: unknown, revoked or expired key, or its user is disabled.
        """
        key_hash = hash_key(key)
        known = self._find(key_hash)
        if known is None:
            known = await self._load(key_hash)
        if self._is_over(known.expires_at):
            raise Unauthenticated(EXPIRED)
        await self._note_use(known)
        return known.principal

    @asynccontextmanager
    async def watch(self, principal: Principal) -> AsyncIterator[trio.Event]:
        """Give the event that is set when the key of *principal* is revoked or expires.

        For whoever serves a key longer than one request. A key that ended since it was presented
        has its event set at once.
        """
        revoked = self._events.watch(principal.key_id)
        # Read after watching began: a revocation is in the row, or will be in the event.
        row = await self._store.read(partial(keys.find_key_by_id, key_id=principal.key_id))
        ended = trio.Event()
        if row is None or not row.is_active:
            ended.set()
            yield ended
        elif row.expires_at is None:
            yield revoked
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_end, revoked, row.expires_at, ended)
                yield ended
                nursery.cancel_scope.cancel()

    async def follow(self, principal: Principal, tell: Callable[[Principal], None]) -> None:
        """Tell what the key of *principal* stands for now, and after each change; never return.

        Of a key that ended nothing is told: that is `watch`'s.
        """
        find = partial(keys.find_key_by_id, key_id=principal.key_id)
        while True:
            changed = self._events.follow(principal.key_id)
            # Read after following began: a change is in the row, or will be in the event.
            row = await self._store.read(find)
            if row is not None:
                tell(build_principal(row))
            await changed.wait()

    async def _tell_end(self, revoked: trio.Event, expires_at: datetime, ended: trio.Event) -> None:
        left = (expires_at - self._clock.now()).total_seconds()
        with trio.move_on_after(max(0.0, left)):
            await revoked.wait()
        ended.set()

    def _find(self, key_hash: str) -> _Known | None:
        known = self._known.get(key_hash)
        if known is None:
            return None
        if known.changed.is_set():
            del self._known[key_hash]
            return None
        self._known.move_to_end(key_hash)
        return known

    async def _load(self, key_hash: str) -> _Known:
        while True:
            before = self._events.announcements
            row = await self._store.read(partial(keys.find_key, key_hash=key_hash))
            # A change since the snapshot was taken may be this key's: look again.
            if self._events.announcements == before:
                break
        if row is None:
            raise Unauthenticated(INVALID)
        self._check(row)
        loaded = _Known(row, self._events.follow(row.id))
        known = self._known.setdefault(key_hash, loaded)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return known

    def _check(self, row: keys.KeyRow) -> None:
        if not row.is_active:
            raise Unauthenticated(REVOKED)
        if self._is_over(row.expires_at):
            raise Unauthenticated(EXPIRED)
        if not row.user_is_active:
            raise Unauthenticated(NO_USER)

    def _is_over(self, expires_at: datetime | None) -> bool:
        return expires_at is not None and expires_at <= self._clock.now()

    async def _note_use(self, known: _Known) -> None:
        now = self._clock.now()
        if known.used_at is not None and now - known.used_at < _BETWEEN_NOTES:
            await trio.lowlevel.checkpoint()
            return
        known.used_at = now
        note = partial(keys.touch_key, key_id=known.principal.key_id, used_at=now)
        try:
            await self._store.write(note)
        except StoreError:
            # Whoever may come in may read while nothing can be written; the next minute notes it.
            return


def build_principal(row: keys.KeyRow) -> Principal:
    """Return who presents the key of this row."""
    is_agent = row.kind == "agent"
    return Principal(
        user_id=row.user_id,
        username=row.username,
        role="normal" if is_agent else row.role,
        key_id=row.id,
        is_agent=is_agent,
        acts_for=row.created_by_id if is_agent else None,
    )

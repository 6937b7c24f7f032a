"""Who presents this API key? Contract: README.md §2."""

from collections import OrderedDict
from datetime import datetime, timedelta
from functools import partial

import msgspec
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


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was good when it was presented, and how one learns that it no longer is."""

    principal: Principal
    expires_at: datetime | None
    revoked: trio.Event


class _Known:
    """A cached admission. Good until its event is set or its time is over."""

    __slots__ = ("admission", "used_at")

    def __init__(self, admission: Admission, used_at: datetime | None) -> None:
        self.admission = admission
        self.used_at = used_at


class Authenticator:
    """Turns API keys into principals; remembers the keys used last.

    Args:
        events: where revocations are announced; a revoked key is refused from then on.
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
        return (await self.admit(key)).principal

    async def admit(self, key: str) -> Admission:
        """Return who presents *key*, for a caller that stays longer than one request.

        Raises:
            Unauthenticated: as `authenticate`.
        """
        key_hash = hash_key(key)
        known = self._find(key_hash)
        if known is None:
            known = await self._load(key_hash)
        expires_at = known.admission.expires_at
        if expires_at is not None and expires_at <= self._clock.now():
            raise Unauthenticated(EXPIRED)
        await self._note_use(known)
        return known.admission

    async def wait_ended(self, admission: Admission) -> None:
        """Wait until the key is revoked or expires; for ever if it does neither."""
        if admission.expires_at is None:
            await admission.revoked.wait()
            return
        left = (admission.expires_at - self._clock.now()).total_seconds()
        with trio.move_on_after(max(0.0, left)):
            await admission.revoked.wait()

    def _find(self, key_hash: str) -> _Known | None:
        known = self._known.get(key_hash)
        if known is None:
            return None
        if known.admission.revoked.is_set():
            del self._known[key_hash]
            return None
        self._known.move_to_end(key_hash)
        return known

    async def _load(self, key_hash: str) -> _Known:
        while True:
            before = self._events.revocations
            row = await self._store.read(partial(keys.find_key, key_hash=key_hash))
            # A revocation since the snapshot was taken may be this key's: look again.
            if self._events.revocations == before:
                break
        if row is None:
            raise Unauthenticated(INVALID)
        loaded = _Known(self._judge(row), row.last_used_at)
        known = self._known.setdefault(key_hash, loaded)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return known

    def _judge(self, row: keys.KeyRow) -> Admission:
        if not row.is_active:
            raise Unauthenticated(REVOKED)
        if row.expires_at is not None and row.expires_at <= self._clock.now():
            raise Unauthenticated(EXPIRED)
        if not row.user_is_active:
            raise Unauthenticated(NO_USER)
        is_agent = row.kind == "agent"
        return Admission(
            principal=Principal(
                user_id=row.user_id,
                username=row.username,
                role="normal" if is_agent else row.role,
                key_id=row.id,
                is_agent=is_agent,
                acts_for=row.created_by_id if is_agent else None,
            ),
            expires_at=row.expires_at,
            revoked=self._events.watch(row.id),
        )

    async def _note_use(self, known: _Known) -> None:
        now = self._clock.now()
        if known.used_at is not None and now - known.used_at < _BETWEEN_NOTES:
            await trio.lowlevel.checkpoint()
            return
        known.used_at = now
        note = partial(keys.touch_key, key_id=known.admission.principal.key_id, used_at=now)
        try:
            await self._store.write(note)
        except StoreError:
            # Whoever may come in may read while nothing can be written; the next minute notes it.
            return

"""The supervision stream: one place that emits, a ring, sinks, and readers with own buffers.

It is not an actor and outlives all of them. Contract: operations.md §1.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeAlias

import msgspec
import trio

from pipelit.actors.runtime.messages import ErrorInfo

DetailValue: TypeAlias = str | int | float | bool | None
Detail: TypeAlias = Mapping[str, DetailValue]

_log = logging.getLogger(__name__)

_DEAD_LETTERS_PER_WINDOW = 10
_THROTTLE_WINDOW = 60.0
_THROTTLED_PATHS = 1_000
_SUBSCRIPTION_BUFFER = 1_000


class Source(msgspec.Struct, frozen=True):
    """Whom a record is about."""

    actor: str
    kind: str
    parent: str | None
    incarnation: int
    detail: Detail = {}
    """Correlation ids, added to the record's own detail."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One change in the life of an actor. Contract: operations.md §1."""

    seq: int
    timestamp: float
    event: str
    actor: str
    kind: str
    parent: str | None
    incarnation: int
    reason: str | None = None
    error: ErrorInfo | None = None
    detail: Detail = {}


Sink: TypeAlias = Callable[[Record], None]


class RecordBus:
    """Emits records, synchronously, before their effect is visible to others."""

    def __init__(self, *, wall: Callable[[], float], ring: int, sinks: Sequence[Sink]) -> None:
        """Make an empty stream that keeps the last *ring* records. *wall*: Unix seconds."""
        self.last_seq = 0
        self.dead_letters = 0
        """All of them, throttled or not."""
        self._wall = wall
        self._ring: deque[Record] = deque(maxlen=ring)
        self._sinks = list(sinks)
        self._subscriptions: set[Subscription] = set()
        self._throttle = _Throttle()

    def emit(
        self,
        event: str,
        source: Source,
        detail: Detail,
        *,
        reason: str | None = None,
        error: ErrorInfo | None = None,
    ) -> Record:
        """Make the next record and hand it to everybody. Never raises for a sink's sake."""
        self.last_seq += 1
        record = Record(
            seq=self.last_seq,
            timestamp=self._wall(),
            event=event,
            actor=source.actor,
            kind=source.kind,
            parent=source.parent,
            incarnation=source.incarnation,
            reason=reason,
            error=error,
            detail={**source.detail, **detail},
        )
        self._ring.append(record)
        for subscription in self._subscriptions:
            subscription.push(record)
        for sink in tuple(self._sinks):
            self._call(sink, record)
        return record

    def dead_letter(
        self, source: Source, *, message_type: str, sender: str | None, cause: str
    ) -> None:
        """Record a message that reached nobody; at most ten per path and minute one by one."""
        self.dead_letters += 1
        suppressed = self._throttle.admit(source.actor, trio.current_time())
        if suppressed is None:
            return
        detail: dict[str, DetailValue] = {
            "message_type": message_type,
            "sender": sender,
            "cause": cause,
        }
        if suppressed:
            detail["suppressed"] = suppressed
        self.emit("dead_letter", source, detail)

    def records(
        self,
        since: int = 0,
        *,
        event: str | None = None,
        kind: str | None = None,
        actor: str | None = None,
        limit: int | None = None,
    ) -> tuple[Record, ...]:
        """Return kept records with `seq` > *since*, oldest first. *actor* is a path prefix."""
        chosen = (
            record
            for record in self._ring
            if record.seq > since
            and event in (None, record.event)
            and kind in (None, record.kind)
            and (actor is None or record.actor.startswith(actor))
        )
        return tuple(chosen)[:limit]

    def subscribe(self, after: int | None, buffer: int) -> "Subscription":
        """Return a reader of everything after *after*, or of what comes if that is `None`."""
        return Subscription(self._subscriptions, self, after, buffer)

    def close(self) -> None:
        """End every reader, after it has read what it holds."""
        for subscription in self._subscriptions:
            subscription.close()

    def _call(self, sink: Sink, record: Record) -> None:
        try:
            sink(record)
        except Exception:  # noqa: BLE001 - a broken sink is removed and reported, as Trio does
            self._sinks.remove(sink)
            _log.exception("a supervision sink failed and was removed: %r", sink)


class Subscription:
    """A reader's own bounded buffer. A slow reader loses its oldest; `missed` counts them."""

    def __init__(
        self, registry: "set[Subscription]", bus: RecordBus, after: int | None, buffer: int
    ) -> None:
        self.missed = 0
        self._registry = registry
        self._bus = bus
        self._after = after
        self._buffer: deque[Record] = deque(maxlen=buffer)
        self._reader = trio.lowlevel.ParkingLot()
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._after is not None:
            for record in self._bus.records(self._after):
                self.push(record)
        self._registry.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._registry.discard(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        while not self._buffer:
            if self._closed:
                raise StopAsyncIteration
            await self._reader.park()
        await trio.lowlevel.checkpoint()
        return self._buffer.popleft()

    def push(self, record: Record) -> None:
        """Add *record*, at the price of the oldest one if the reader is slow."""
        if len(self._buffer) == self._buffer.maxlen:
            self.missed += 1
        self._buffer.append(record)
        self._reader.unpark_all()

    def close(self) -> None:
        """Let the reader end once it has read what is there."""
        self._closed = True
        self._reader.unpark_all()


class _Throttle:
    """Counts dead letters per path. Bounded: the path heard of least recently is forgotten."""

    def __init__(self) -> None:
        # {path: (start of its minute, letters in it)}
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def admit(self, path: str, now: float) -> int | None:
        """Return how many were kept back before this one, or `None` to keep this one back too."""
        start, count = self._seen.pop(path, (now, 0))
        kept_back = 0
        if now - start >= _THROTTLE_WINDOW:
            kept_back = max(0, count - _DEAD_LETTERS_PER_WINDOW)
            start, count = now, 0
        self._seen[path] = (start, count + 1)
        if len(self._seen) > _THROTTLED_PATHS:
            self._seen.popitem(last=False)
        return kept_back if count < _DEAD_LETTERS_PER_WINDOW else None

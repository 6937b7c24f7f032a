"""What waits to be written to one socket, bounded, in order.

Live events come in from the hub and are limited: 1000 events or 4 MiB. Answers and replayed events
come from the socket's own tasks, which wait for room instead. Contract: websocket.md, "Connection".
"""

from collections import deque
from enum import Enum, auto

import msgspec
import trio

from pipelit.web.ws import frames
from pipelit.web.ws.feed import Event

MAX_EVENTS = 1000
MAX_BYTES = 4 * 1024 * 1024
MAX_ANSWERS = 100
FRAME_BYTES = 256 * 1024
"""Events travel together up to this size when the client wants batches."""


class Close(msgspec.Struct, frozen=True):
    """Why and how the socket is closed."""

    code: int
    reason: str


SLOW_CONSUMER = Close(1013, "Slow consumer")


class _Kind(Enum):
    ANSWER = auto()
    BATCH_SWITCH = auto()
    STORED = auto()
    LIVE = auto()
    DELTA = auto()


_EVENTS = frozenset({_Kind.STORED, _Kind.LIVE, _Kind.DELTA})


class _Item(msgspec.Struct, frozen=True):
    kind: _Kind
    text: bytes
    enabled: bool = False


class Outbox:
    """Owned by one socket. Filled synchronously, emptied by the socket's writer.

    Invariant: `_live_count` and `_live_bytes` describe the LIVE and DELTA items of `_items`.
    """

    def __init__(self) -> None:
        self._items: deque[_Item] = deque()
        self._live_count = 0
        self._live_bytes = 0
        self._own_count = 0
        self._is_batching = False
        self._wakeup = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self.closing: Close | None = None
        """Set once; from then on nothing but the close frame is sent."""
        self._events_taken = 0

    def close(self, close: Close) -> None:
        """Drop what waits and make the writer close the socket. The first reason stays."""
        if self.closing is None:
            self.closing = close
            self._items.clear()
            self._wakeup.set()
            self._room.unpark_all()

    def put_live(self, event: Event) -> None:
        """Queue an event from the hub. Over the limit, pieces of text go first, then the socket."""
        if self.closing is not None:
            return
        kind = _Kind.DELTA if event.type == "chat_delta" else _Kind.LIVE
        self._push(_Item(kind, event.json))
        if self._is_over():
            self._drop_deltas()
            if self._is_over():
                self.close(SLOW_CONSUMER)

    def put_answer(self, text: bytes) -> None:
        """Queue an answer or a ping."""
        self._push(_Item(_Kind.ANSWER, text))

    def put_batch_switch(self, *, enabled: bool) -> None:
        """Queue the answer to `batch`; what comes after it travels the new way."""
        self._push(_Item(_Kind.BATCH_SWITCH, frames.batch(enabled=enabled), enabled))

    def put_stored(self, event: Event) -> None:
        """Queue a replayed event. The replay waits for room between its pages."""
        self._push(_Item(_Kind.STORED, event.json))

    async def wait_room(self) -> None:
        """Wait until few answers and no replayed page are waiting."""
        while self._own_count > 0 and self.closing is None:
            await self._room.park()

    @property
    def is_crowded(self) -> bool:
        """Whether so many answers wait that no more should be asked for."""
        return self._own_count >= MAX_ANSWERS

    async def take(self) -> bytes | Close:
        """Wait for the next frame to send, or for the reason to close the socket."""
        while not self._items and self.closing is None:
            self._wakeup = trio.Event()
            await self._wakeup.wait()
        if self.closing is not None:
            return self.closing
        frame = self._pop_frame()
        if self._own_count == 0:
            self._room.unpark_all()
        return frame

    def count_events(self) -> int:
        """Return how many events were in the frames taken since the last call."""
        count, self._events_taken = self._events_taken, 0
        return count

    def _pop_frame(self) -> bytes:
        item = self._pop()
        if item.kind is _Kind.BATCH_SWITCH:
            self._is_batching = item.enabled
            return item.text
        if item.kind is _Kind.ANSWER or not self._is_batching:
            return item.text
        texts, size = [item.text], len(item.text)
        while self._items and self._items[0].kind not in {_Kind.ANSWER, _Kind.BATCH_SWITCH}:
            size += len(self._items[0].text)
            if size > FRAME_BYTES:
                break
            texts.append(self._pop().text)
        return frames.join(texts)

    def _push(self, item: _Item) -> None:
        if self.closing is not None:
            return
        self._items.append(item)
        self._count(item, 1)
        self._wakeup.set()

    def _pop(self) -> _Item:
        item = self._items.popleft()
        self._count(item, -1)
        self._events_taken += item.kind in _EVENTS
        return item

    def _count(self, item: _Item, sign: int) -> None:
        if item.kind in {_Kind.LIVE, _Kind.DELTA}:
            self._live_count += sign
            self._live_bytes += sign * len(item.text)
        else:
            self._own_count += sign

    def _is_over(self) -> bool:
        # An event that waits alone may be of any size: no client could be fast enough for it.
        is_heavy = self._live_bytes > MAX_BYTES and self._live_count > 1
        return self._live_count > MAX_EVENTS or is_heavy

    def _drop_deltas(self) -> None:
        kept = [item for item in self._items if item.kind is not _Kind.DELTA]
        self._items.clear()
        self._live_count = self._live_bytes = self._own_count = 0
        for item in kept:
            self._push(item)

"""The stored events of one execution as a server-sent event stream.

Contract: executions.md, "events". Nothing is queued: a live event only says that the store has
more, and the reader's own pace decides when it is asked. So a slow reader costs nothing.
"""

import re
from collections.abc import Sequence

import trio

from pipelit.services.principal import Principal
from pipelit.web.responses import Response, SendChunk, StreamResponse
from pipelit.web.ws.feed import EXECUTION_CHANNEL, TERMINAL_EVENTS, Event, Feed

PAGE_SIZE = 50
KEEP_ALIVE_SECONDS = 15.0
_KEEP_ALIVE = b": keep-alive\n\n"
_EVENT_ID = re.compile(r"[0-9]{1,18}")


def wants_stream(accept: str) -> bool:
    """Tell whether an `Accept` header names `text/event-stream`; `*/*` is not enough."""
    kinds = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return "text/event-stream" in kinds


def start_after(last_event_id: str | None, since: int) -> int:
    """Return where a stream starts: after `Last-Event-ID` if it is a number, else *since*."""
    if last_event_id is not None and _EVENT_ID.fullmatch(last_event_id):
        return int(last_event_id)
    return since


async def sse_response(
    feed: Feed, principal: Principal, execution_id: str, after: int, *, stopping: trio.Event
) -> StreamResponse | Response:
    """Return the stream of events after number *after*.

    204 when the execution has ended and nothing is left, which tells browsers not to reconnect.
    The caller has checked that the execution exists and is visible.
    """
    last_seq = await feed.last_seq(principal, execution_id)
    if last_seq <= after and last_seq > 0:
        newest = await feed.replay(principal, execution_id, last_seq - 1, 1)
        if newest and newest[0].type in TERMINAL_EVENTS:
            return Response(status=204)
    stream = _Stream(feed, principal, execution_id, min(after, last_seq), stopping)
    return StreamResponse(produce=stream.produce, content_type="text/event-stream")


class _Stream:
    """One reader. `_more` is set by the hub whenever the store may have something new."""

    def __init__(
        self,
        feed: Feed,
        principal: Principal,
        execution_id: str,
        cursor: int,
        stopping: trio.Event,
    ) -> None:
        self._feed = feed
        self._principal = principal
        self._execution_id = execution_id
        self._cursor = cursor
        self._stopping = stopping
        self._more = trio.Event()

    async def produce(self, send: SendChunk) -> None:
        """Write events until the terminal one, or until something ends the stream."""
        async with (
            self._feed.open(self._principal, self._notice, self._look) as subscriber,
            trio.open_nursery() as nursery,
        ):
            subscriber.subscribe(EXECUTION_CHANNEL + self._execution_id)
            nursery.start_soon(_cancel_when, subscriber.revoked, nursery.cancel_scope)
            nursery.start_soon(_cancel_when, self._stopping, nursery.cancel_scope)
            await self._write_all(send)
            nursery.cancel_scope.cancel()

    def _notice(self, event: Event) -> None:
        if event.seq is not None and event.seq > self._cursor:
            self._more.set()

    def _look(self) -> None:
        self._more.set()

    async def _write_all(self, send: SendChunk) -> None:
        while True:
            self._more = trio.Event()
            page = await self._feed.replay(
                self._principal, self._execution_id, self._cursor, PAGE_SIZE
            )
            if page:
                await send(_encode(page))
                self._cursor = page[-1].seq or self._cursor
                if page[-1].type in TERMINAL_EVENTS:
                    return
            elif not await self._wait(send):
                return

    async def _wait(self, send: SendChunk) -> bool:
        """Wait for the next event with comments in between; False when the execution is gone."""
        while True:
            with trio.move_on_after(KEEP_ALIVE_SECONDS):
                await self._more.wait()
                return True
            last_seq = await self._feed.last_seq(self._principal, self._execution_id)
            if last_seq > self._cursor:
                return True  # the hub was too busy to say so
            if self._cursor and not last_seq:
                return False
            await send(_KEEP_ALIVE)


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _encode(events: Sequence[Event]) -> bytes:
    return b"".join(b"id: %d\ndata: %s\n\n" % (event.seq or 0, event.json) for event in events)

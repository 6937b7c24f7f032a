"""The `/ws/` endpoint: from handshake to close frame.

Contract: websocket.md, "Connection" and "Heartbeat". Each socket has one reader and one writer; the
close frame is sent by the writer alone, so nothing follows it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from itertools import count

import structlog
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

from pipelit.errors import Unauthenticated
from pipelit.metrics import Metrics
from pipelit.services.principal import Principal
from pipelit.web.auth import Authenticator
from pipelit.web.request import Head
from pipelit.web.ws import frames
from pipelit.web.ws.feed import Feed, Subscriber
from pipelit.web.ws.origin import AllowOrigin, allow_any
from pipelit.web.ws.outbox import SLOW_CONSUMER, Close, Outbox
from pipelit.web.ws.session import Session
from pipelit.web.ws.socket import Socket

IDLE_SECONDS = 30.0
PONG_SECONDS = 10.0
LINGER_SECONDS = 2.0
"""The client gets this long to answer our close frame."""

BAD_ORIGIN = Close(1008, "Origin not allowed")
INVALID_TOKEN = Close(1008, "Invalid or missing token")
SHUTTING_DOWN = Close(1001, "Server shutting down")
HEARTBEAT_TIMEOUT = Close(1001, "Heartbeat timeout")
BINARY_FRAME = Close(1003, "Text frames only")
CRASHED = Close(1011, "Internal server error")

_log = structlog.get_logger(__name__)


Attach = Callable[[str, int], AbstractAsyncContextManager[object]]
"""(name, user) -> a place in the tree of actors for as long as the block lasts."""


class SocketEndpoint:
    """Serves every WebSocket of the server. Holds only what it was built with."""

    def __init__(
        self,
        feed: Feed,
        authenticate: Authenticator,
        stopping: trio.Event,
        metrics: Metrics | None = None,
        attach: Attach = lambda *_: nullcontext(),
        allow_origin: AllowOrigin = allow_any,
    ) -> None:
        self._attach = attach
        self._allow_origin = allow_origin
        self._numbers = count(1)
        self._metrics = metrics or Metrics()
        self._feed = feed
        self._authenticate = authenticate
        self._stopping = stopping

    async def __call__(
        self, head: Head, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one socket until it is closed by either side."""
        socket = Socket(receive, send)
        if head.raw_path not in {"/ws", "/ws/"}:
            await socket.reject_path()
            return
        await socket.accept()
        try:
            admitted = await self._admit(head)
            if isinstance(admitted, Close):
                await socket.close(admitted.code, admitted.reason)
                with trio.move_on_after(LINGER_SECONDS):
                    await socket.drain()
            else:
                await self._serve(socket, admitted)
        except Exception:  # noqa: BLE001  # ends this socket alone, with a code that says so
            _log.exception("websocket failed")
            await socket.close(CRASHED.code, CRASHED.reason)

    async def _admit(self, head: Head) -> Principal | Close:
        """Return who asks, or why the socket closes at once."""
        if not self._allow_origin(head.headers):
            return BAD_ORIGIN
        key = head.query.get("token") or head.bearer
        if not key:
            return INVALID_TOKEN
        try:
            return await self._authenticate(key)
        except Unauthenticated:
            return INVALID_TOKEN

    async def _serve(self, socket: Socket, principal: Principal) -> None:
        outbox = Outbox()
        self._metrics.socket_opened()
        try:
            async with self._attach(str(next(self._numbers)), principal.user_id):
                await self._converse(socket, principal, outbox)
        finally:
            self._metrics.socket_closed(slow=outbox.closing == SLOW_CONSUMER)

    async def _converse(self, socket: Socket, principal: Principal, outbox: Outbox) -> None:
        async with trio.open_nursery() as nursery:
            session = Session(principal, self._feed, outbox, nursery)
            reader = self._feed.open(principal, session.deliver, session.catch_up)
            # The session starts replays in the nursery, so it is there first. It is cancelled
            # before the reader closes, and what its tasks hold of the subscriber is plain state.
            async with reader as subscriber:
                revoked = subscriber.revoked
                nursery.start_soon(_close_when, revoked, outbox, INVALID_TOKEN)
                nursery.start_soon(_close_when, self._stopping, outbox, SHUTTING_DOWN)
                nursery.start_soon(_beat, socket, session, outbox)
                read = partial(_read, socket, session, subscriber, outbox, nursery)
                nursery.start_soon(read)
                close = await self._write(socket, outbox)
                await socket.close(close.code, close.reason)
                with trio.move_on_after(LINGER_SECONDS):
                    await socket.wait_gone()
                nursery.cancel_scope.cancel()

    async def _write(self, socket: Socket, outbox: Outbox) -> Close:
        """Send what waits until the socket is to be closed; return why."""
        while not isinstance(item := await outbox.take(), Close):
            await socket.send_text(item.decode())
            self._metrics.socket_events(outbox.count_events())
        return item


async def _close_when(event: trio.Event, outbox: Outbox, close: Close) -> None:
    await event.wait()
    outbox.close(close)


async def _read(
    socket: Socket, session: Session, subscriber: Subscriber, outbox: Outbox, nursery: trio.Nursery
) -> None:
    """Handle the client's frames until it leaves, which ends the socket."""
    while (message := await socket.receive()) is not None:
        if isinstance(message, bytes):
            outbox.close(BINARY_FRAME)
            continue
        if outbox.closing is not None:
            continue
        frame = frames.parse_frame(message)
        if frame is not None:
            await session.handle(frame, subscriber)
        if outbox.is_crowded:
            await outbox.wait_room()
    if not socket.is_closing:
        nursery.cancel_scope.cancel()


async def _beat(socket: Socket, session: Session, outbox: Outbox) -> None:
    """Ask a silent client for a sign of life, and give up on it."""
    while True:
        due = socket.last_activity + IDLE_SECONDS
        if trio.current_time() < due:
            # Until, not for: what is left of a rounded difference could be too short to pass.
            await trio.sleep_until(due)
            continue
        session.pong = trio.Event()
        outbox.put_answer(frames.PING)
        with trio.move_on_after(PONG_SECONDS) as scope:
            await session.pong.wait()
        if scope.cancelled_caught:
            outbox.close(HEARTBEAT_TIMEOUT)
            return

"""Stands between Hypercorn and the application and closes what its configuration leaves open.

Hypercorn hands the application a bound method of the stream that serves the request. That is an
internal: the version is pinned, and what is done with it has a test on a real socket.
"""

from typing import Any

import h11
import structlog
import trio
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope
from wsproto.events import Message

_log = structlog.get_logger(__name__)


class Guard:
    """An ASGI application around another; knows how many WebSockets are open."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app
        self._open_sockets = 0
        self._socket_ended = trio.lowlevel.ParkingLot()

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        stream: WSStream = send.__self__  # type: ignore[attr-defined]  # a bound method, see above
        # permessage-deflate costs 120 KB a socket and cannot be configured away.
        stream.handshake.extensions = None
        stream.buffer = BoundedBuffer(stream.buffer.max_length)
        self._open_sockets += 1
        try:
            await self._app(scope, receive, send)
        except h11.LocalProtocolError as error:
            # Hypercorn has refused a client that sent frames before the upgrade: not our fault.
            _log.debug("websocket refused", error=str(error))
        finally:
            self._open_sockets -= 1
            self._socket_ended.unpark_all()

    async def wait_no_sockets(self) -> None:
        """Wait until no WebSocket is open."""
        while self._open_sockets:
            await self._socket_ended.park()


class BoundedBuffer(WebsocketBuffer):
    """Hypercorn's message buffer, which counts bytes and stops storing at its limit.

    The original counts characters, and goes on storing what follows the piece that was too much.
    """

    def extend(self, event: Message[Any]) -> None:
        """Take a piece of a message.

        Raises:
            FrameTooLargeError: the message is over the limit; Hypercorn closes with 1009.
        """
        piece = event.data
        total = self.length + len(piece.encode() if isinstance(piece, str) else piece)
        if total > self.max_length:
            self.length = total
            raise FrameTooLargeError
        super().extend(event)
        self.length = total

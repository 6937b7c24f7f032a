"""Stands between Hypercorn and the application and closes what its configuration leaves open.

Hypercorn hands the application a bound method of the stream that serves the request, and that
stream leads to the connection. Both are internals: the version is pinned, and every use of them
has a test on a real socket.
"""

from typing import Any, cast

import trio
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope
from wsproto.events import Message


class _Served:
    """One request or WebSocket under way. Compared by identity."""

    def __init__(self, transport: trio.abc.Stream, *, is_socket: bool) -> None:
        self.transport = transport
        self.is_socket = is_socket


class Guard:
    """An ASGI application around another; knows the connections that are being served."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app
        self._served: set[_Served] = set()
        self._ended = trio.lowlevel.ParkingLot()

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        stream: Any = send.__self__  # type: ignore[attr-defined]  # a bound method, see above
        if isinstance(stream, WSStream):
            # permessage-deflate costs 120 KB a socket and cannot be configured away.
            stream.handshake.extensions = None
            stream.buffer = BoundedBuffer(stream.buffer.max_length)
        served = _Served(_transport(stream), is_socket=isinstance(stream, WSStream))
        self._served.add(served)
        try:
            await self._app(scope, receive, send)
        finally:
            self._served.remove(served)
            self._ended.unpark_all()

    async def wait_no_sockets(self) -> None:
        """Wait until no WebSocket is open."""
        while any(served.is_socket for served in self._served):
            await self._ended.park()

    async def abort(self) -> None:
        """End every connection that is still served, without a word.

        The only way out for a request whose client does not read: Hypercorn shields its sends.
        """
        for served in tuple(self._served):
            await trio.aclose_forcefully(served.transport)


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
        size = len(piece.encode()) if isinstance(piece, str) else len(piece)
        total = self.length + size
        if total > self.max_length:
            self.length = total
            raise FrameTooLargeError
        super().extend(event)
        self.length = total


def _transport(stream: Any) -> trio.abc.Stream:
    """Follow stream → protocol → connection to the bytes' own stream."""
    protocol = stream.send.__self__
    connection = protocol.send.__self__
    return cast("trio.abc.Stream", connection.stream)

"""A small HTTP/1.1 server for scripted models: real sockets, one handler, nothing else.

For the demo, the tutorial and tests. It is no web framework and not meant for the network.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeAlias

import h11
import msgspec
import trio

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_CONNECTIONS = 4096
IDLE_SECONDS = 120.0

_CHUNK = 65_536
_PEER_LEFT = (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError)


class Request(msgspec.Struct, frozen=True):
    """A complete request. Header names are lower case; of repeated ones the last counts."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Exchange:
    """One request and the way to answer it. Owned by the handler's task.

    `gone` is set when the client closes its connection before the answer is complete.
    """

    def __init__(self, request: Request, http: h11.Connection, stream: trio.SocketStream) -> None:
        self.request = request
        self.gone = trio.Event()
        self._http = http
        self._stream = stream

    @property
    def client_port(self) -> int:
        """The client's port, which tells its connections apart."""
        port: int = self._stream.socket.getpeername()[1]
        return port

    async def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a whole answer."""
        length = {"content-length": str(len(body))}
        await self.start(status, content_type=content_type, headers={**length, **(headers or {})})
        await self.send(body)
        await self.end()

    async def start(
        self,
        status: int = 200,
        *,
        content_type: str = "text/event-stream",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send the head of an answer whose body follows in pieces."""
        lines = [("content-type", content_type), *(headers or {}).items()]
        await self._send(h11.Response(status_code=status, headers=lines))

    async def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Complete the answer."""
        await self._send(h11.EndOfMessage())

    async def abort(self) -> None:
        """Close the connection in the middle of whatever was being sent."""
        await self._stream.aclose()

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)


Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]


async def serve_http(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; start it with `nursery.start`, which returns `http://host:port`.

    A handler is cancelled when its client leaves.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    bound = listeners[0].socket.getsockname()[1]
    task_status.started(f"http://{host}:{bound}")
    slots = trio.CapacityLimiter(MAX_CONNECTIONS)
    await trio.serve_listeners(partial(_converse, handler, slots), listeners)


async def _converse(
    handler: Handler, slots: trio.CapacityLimiter, stream: trio.SocketStream
) -> None:
    http = h11.Connection(h11.SERVER)
    async with slots, stream:
        try:
            while (request := await _next_request(http, stream)) is not None:
                await _handle(Exchange(request, http, stream), handler, http, stream)
                if http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    return
                http.start_next_cycle()
        except _PEER_LEFT:
            return  # the peer left or speaks something else; there is nobody to tell


async def _next_request(http: h11.Connection, stream: trio.SocketStream) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    with trio.move_on_after(IDLE_SECONDS):
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(_CHUNK))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY_BYTES:
                    return None
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _request(head, bytes(body))
            else:
                return None
    return None


def _request(head: h11.Request, body: bytes) -> Request:
    headers = {name.decode().lower(): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode(), head.target.decode(), headers, body)


async def _handle(
    exchange: Exchange, handler: Handler, http: h11.Connection, stream: trio.SocketStream
) -> None:
    async def watch(scope: trio.CancelScope) -> None:
        try:
            data = await stream.receive_some(_CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if data:
            http.receive_data(data)  # the next request, early; it is read in its turn
        else:
            exchange.gone.set()
            scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        try:
            await handler(exchange)
        except _PEER_LEFT:
            exchange.gone.set()
        nursery.cancel_scope.cancel()

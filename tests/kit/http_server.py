"""A real HTTP server on loopback whose answers a test writes as plain functions."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio


@dataclass
class Seen:
    """One request as it arrived. Header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What to send back. `hang`: never end the answer, wait for the client to leave."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False


@dataclass
class LocalServer:
    """A running server: its port, what it has seen, and when a hanging client left."""

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    client_left: trio.Event = field(default_factory=trio.Event)
    arrived: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serve(answer: Callable[[Seen], Answer], *, port: int = 0) -> AsyncIterator[LocalServer]:
    """Serve on a port of 127.0.0.1 (0: a free one), one connection per request."""
    server = LocalServer()

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            request = await _read_request(stream)
            if request is None:
                return
            server.seen.append(request)
            server.arrived.set()
            reply = answer(request)
            headers = {"connection": "close", **reply.headers}
            if not reply.hang:
                headers.setdefault("content-length", str(len(reply.body)))
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            status_line = f"HTTP/1.1 {reply.status} X\r\n{head}\r\n".encode()
            try:
                await stream.send_all(status_line + reply.body)
                if reply.hang and not await stream.receive_some(1):
                    server.client_left.set()
            except trio.BrokenResourceError:
                server.client_left.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, port, host="127.0.0.1"))
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


async def _read_request(stream: trio.SocketStream) -> Seen | None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = await stream.receive_some(65536)
        if not part:
            return None
        raw += part
    head, _, body = raw.partition(b"\r\n\r\n")
    request_line, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive_some(65536)
    return Seen(method, target, headers, body)

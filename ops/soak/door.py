"""The way into a simulated server: HTTP requests and WebSockets without a kernel's sockets.

Real sockets do not go with a mock clock: it would jump while a packet is in the kernel. So the
application gets what its HTTP server would give it, by the same interface; everything above it is
the product's own: routing, decoding, authentication, encoding, the WebSocket protocol.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import trio

from ops.soak.chance import Chance
from ops.soak.ports import Life
from pipelit.web.app import WebApp

Spawn = Callable[..., trio.CancelScope]


class ConnectionLost(Exception):
    """The server is down, or went while it had not answered. Nobody knows what it did."""


class SocketClosed(Exception):
    """The WebSocket ended. `code`: of its close frame; 1006 without one."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return msgspec.json.decode(self.body)

    @property
    def is_good(self) -> bool:
        """The server did what it was asked."""
        return 200 <= self.status < 300


class Door:
    """Open while a server listens."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._app: WebApp | None = None
        self._spawn: Spawn | None = None
        self._life: Life | None = None
        self.connections: list[str] = []
        """Paths of requests and sockets under way."""
        self.faults: list[str] = []
        """What the application let out that none may."""

    def open(self, app: WebApp, spawn: Spawn, life: Life) -> None:
        """Let clients in; *spawn* starts a task of the server."""
        self._app, self._spawn, self._life = app, spawn, life

    def close(self) -> None:
        """Let nobody in any more."""
        self._app = self._spawn = None

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the answer. Cancelling hangs up.

        Raises:
            ConnectionLost: there was none.
        """
        content = b"" if body is None else msgspec.json.encode(body)
        sent = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        exchange = _Exchange(content)
        await self._chance.pause("door", late=1.0)
        self._start(_scope("http", path, {**sent, **(headers or {})}, method), exchange)
        try:
            await exchange.over.wait()
        except trio.Cancelled:
            exchange.hang_up()
            raise
        if exchange.answer is None:
            raise ConnectionLost
        return exchange.answer

    async def socket(self, key: str) -> "Socket":
        """Open a WebSocket.

        Raises:
            ConnectionLost: nobody listens.
        """
        socket = Socket(self._chance)
        await self._chance.pause("door", late=1.0)
        self._start(_scope("websocket", f"/ws/?token={key}", {}), socket)
        return socket

    def _start(self, scope: dict[str, Any], connection: "_Exchange | Socket") -> None:
        if self._app is None or self._spawn is None or self._life is None:
            raise ConnectionLost
        connection.life = self._life
        self._spawn(self._serve, self._app, scope, connection, name=scope["path"])

    async def _serve(
        self, app: WebApp, scope: dict[str, Any], connection: "_Exchange | Socket"
    ) -> None:
        self.connections.append(scope["path"])
        try:
            serve: Callable[..., Awaitable[None]] = app
            await serve(scope, connection.receive_asgi, connection.send_asgi)
        except Exception as error:  # noqa: BLE001 - as an HTTP server: noted, the connection ends
            if self._life is not None and self._life.alive:
                self.faults.append(f"the application raised {error!r} for {scope['path']}")
        finally:
            self.connections.remove(scope["path"])
            connection.end()


class _Exchange:
    """One request on its way, as an HTTP server holds it."""

    life: Life

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._gone = trio.Event()
        self._status = 0
        self._content = bytearray()
        self.over = trio.Event()
        self.answer: Answer | None = None

    def hang_up(self) -> None:
        self._gone.set()

    def end(self) -> None:
        self._gone.set()
        self.over.set()

    async def receive_asgi(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send_asgi(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.life.alive:
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._content += message.get("body", b"")
        if not message.get("more_body", False):
            self.answer = Answer(self._status, bytes(self._content))
            self.over.set()


class Socket:
    """One WebSocket: the client's side above, the server's below. A slow client fills it."""

    life: Life

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._to_server: tuple[Any, Any] = trio.open_memory_channel[dict[str, Any]](1000)
        self._to_client: tuple[Any, Any] = trio.open_memory_channel[str](16)
        self._to_server[0].send_nowait({"type": "websocket.connect"})
        self._code = 1006

    async def say(self, frame: object) -> None:
        """Send a frame; to a server that is gone, nothing happens."""
        await trio.lowlevel.checkpoint()
        text = msgspec.json.encode(frame).decode()
        self._to_server[0].send_nowait({"type": "websocket.receive", "text": text, "bytes": None})

    async def hear(self) -> Any:
        """Return the next frame.

        Raises:
            SocketClosed: none comes any more.
        """
        await self._chance.pause("socket", late=5.0)
        try:
            return msgspec.json.decode(await self._to_client[1].receive())
        except trio.EndOfChannel:
            raise SocketClosed(self._code) from None

    def hang_up(self) -> None:
        """Leave, without a word."""
        self._to_client[1].close()
        self._to_server[0].send_nowait({"type": "websocket.disconnect", "code": 1006})

    def end(self) -> None:
        """Be left by the server."""
        self._to_client[0].close()

    async def receive_asgi(self) -> dict[str, Any]:
        """Give the application what the client sent."""
        message: dict[str, Any] = await self._to_server[1].receive()
        return message

    async def send_asgi(self, message: dict[str, Any]) -> None:
        """Take what the application sends."""
        await trio.lowlevel.checkpoint()
        if not self.life.alive:
            return
        match message["type"]:
            case "websocket.send":
                try:
                    await self._to_client[0].send(message["text"])
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return  # the client left; the server learns it from what it receives
            case "websocket.close":
                self._code = message["code"]
                self._to_client[0].close()
                self._to_server[0].send_nowait({"type": "websocket.disconnect", "code": 1000})


def _scope(kind: str, path: str, headers: Mapping[str, str], method: str = "GET") -> dict[str, Any]:
    parts = urlsplit(path)
    raw = quote(parts.path)
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http" if kind == "http" else "ws",
        "path": parts.path,
        "raw_path": raw.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
        "extensions": {},
    }

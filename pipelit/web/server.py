"""Listens, and stops in order. The only place that runs Hypercorn.

Hypercorn's own `serve` lets an error in one connection end all of them, and cannot end a
connection whose client does not read. So its connections run under this module instead.
Contract: operations.md §5. What else is walled off, in `guard` and `connection`: stack.md §2.
"""

import logging
import socket

import h11
import msgspec
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from pipelit.web.app import WebApp
from pipelit.web.guard import Guard

USER_TIMEOUT_SECONDS = 30.0
"""A peer that acknowledges nothing for so long is gone: the kernel ends its connection.

Nothing above may do it, because Hypercorn shields its sends. It is also the rule for readers of
event streams (executions.md, "events").
"""
KEEP_ALIVE_SECONDS = 60.0
CLOSE_SOCKETS_SECONDS = 3.0
"""Sockets get this long, or the grace if that is shorter, to send and read their close frames."""
MAX_FRAME_BYTES = 64 * 1024
BACKLOG = 1024

_log = structlog.get_logger(__name__)


class Address(msgspec.Struct, frozen=True):
    """Where the server listens; `port` is the real one also when 0 was asked for."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL of the server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


async def serve(
    app: WebApp,
    *,
    host: str,
    port: int,
    stopping: trio.Event,
    grace: float = 10.0,
    user_timeout: float = USER_TIMEOUT_SECONDS,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *app* until *stopping* is set, then stop in order and return.

    The order: the listener closes; WebSockets and event streams, which watch *stopping*
    themselves, say goodbye; idle connections close; requests get *grace* seconds; what is left
    is cut off. Cancelling this cuts off at once.

    Args:
        host: a name or an address; of a name the first address is taken.
        port: 0 takes a free one; the bound address goes to *task_status*.
        stopping: the same event that *app* was built with.
        grace: seconds for requests under way.
        user_timeout: seconds, see `USER_TIMEOUT_SECONDS`.

    Raises:
        OSError: the address cannot be listened on.
    """
    listener = await open_listener(host, port, user_timeout=user_timeout)
    bound = listener.socket.getsockname()
    guard = Guard(app)
    connections = _Connections(guard, _configure(grace))
    async with trio.open_nursery() as nursery, listener:
        accepting = await nursery.start(_accept, connections, listener, nursery)
        task_status.started(Address(bound[0], bound[1]))
        try:
            await stopping.wait()
            accepting.cancel()
            with trio.move_on_after(min(grace, CLOSE_SOCKETS_SECONDS)):
                await guard.wait_no_sockets()
            await connections.close_idle()
            with trio.move_on_after(grace):
                await connections.wait_none()
        finally:
            connections.abort()
        nursery.cancel_scope.cancel()


async def _accept(
    connections: "_Connections",
    listener: trio.SocketListener,
    nursery: trio.Nursery,
    *,
    task_status: trio.TaskStatus[trio.CancelScope],
) -> None:
    """Take connections, each served in *nursery*, until the reported scope is cancelled."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await trio.serve_listeners(connections.serve, [listener], handler_nursery=nursery)


class _Connections:
    """The TCP connections of the server, each served by Hypercorn."""

    def __init__(self, app: Guard, config: Config) -> None:
        self._app = ASGIWrapper(app)
        self._config = config
        self._context = WorkerContext(None)
        self._streams: set[trio.SocketStream] = set()
        self._ended = trio.lowlevel.ParkingLot()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection. An error ends this one alone."""
        self._streams.add(stream)
        try:
            connection = _Connection(self._app, self._config, self._context, {}, stream)  # type: ignore[arg-type]  # declared for TLS only
            await connection.run()
        except Exception as error:  # noqa: BLE001  # this client's mistake, and only its loss
            _log.debug("connection failed", exc_info=error)
        finally:
            self._streams.discard(stream)
            self._ended.unpark_all()
            await trio.aclose_forcefully(stream)

    async def close_idle(self) -> None:
        """Close connections between two requests, and from now on after each answer."""
        await self._context.terminated.set()

    async def wait_none(self) -> None:
        """Wait until no connection is left."""
        while self._streams:
            await self._ended.park()

    def abort(self) -> None:
        """End every connection without a word: the way out of a shielded send."""
        for stream in tuple(self._streams):
            stream.socket.close()


class _Connection(TCPServer):
    """A connection that speaks HTTP/1 only.

    With HTTP/2 Hypercorn forgets the idle timer of a connection, which then outlasts a stop.
    """

    async def _read_data(self) -> None:
        was = self.protocol
        was.protocol = _Http1(
            was.app,
            was.config,
            was.context,
            was.task_group,
            was.state,
            was.ssl,
            was.client,
            was.server,
            was.send,
        )
        await super()._read_data()


class _Http1(H11Protocol):
    async def _check_protocol(self, event: h11.Request) -> None:
        """Take no offer to upgrade, which HTTP/1.1 allows, and end what is not HTTP/1."""
        if not event.http_version.startswith(b"1."):
            await self._send_error_response(505)
            raise h11.RemoteProtocolError("only HTTP/1 is spoken", error_status_hint=505)


async def open_listener(host: str, port: int, *, user_timeout: float) -> trio.SocketListener:
    """Open the listening socket. Accepted connections inherit its options.

    Raises:
        OSError: the name is unknown, or the address is in use or not ours.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    listener = trio.socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        millis = int(user_timeout * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, millis)
        await listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return trio.SocketListener(listener)


def _configure(grace: float) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("pipelit.web.hypercorn")
    config.include_server_header = False
    config.graceful_timeout = grace
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.read_timeout = None
    config.websocket_max_message_size = MAX_FRAME_BYTES
    config.websocket_ping_interval = None
    return config

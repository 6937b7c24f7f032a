"""Listens, and stops in order. The only place that starts Hypercorn.

Contract: operations.md §5. What is walled off here and in `guard` and `connection`: stack.md §2.
"""

import logging
import socket

import hypercorn.trio
import msgspec
import trio
from hypercorn.config import Config

from pipelit.web.app import WebApp
from pipelit.web.guard import Guard

USER_TIMEOUT_SECONDS = 30.0
"""A peer that acknowledges nothing for so long is gone: the kernel ends its connection.

Nothing above may do it, because Hypercorn shields its sends. It is also the rule for readers of
event streams (executions.md, "events").
"""
KEEP_ALIVE_SECONDS = 60.0
CLOSE_SOCKETS_SECONDS = 3.0
MAX_FRAME_BYTES = 64 * 1024
ABORT_AFTER_SECONDS = 1.0
BACKLOG = 1024


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

    The order: WebSockets and event streams, which watch *stopping* themselves, say goodbye; the
    listener closes; requests get *grace* seconds; what is left is cut off. Cancelling this stops
    at once.

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
    bound = listener.getsockname()
    guard = Guard(app)
    trigger = trio.Event()
    started = _Relay(task_status, Address(bound[0], bound[1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_in_order, guard, stopping, trigger, grace)
        await hypercorn.trio.serve(
            guard,
            _configure(listener, grace),
            shutdown_trigger=trigger.wait,
            task_status=started,
        )
        nursery.cancel_scope.cancel()


async def _stop_in_order(
    guard: Guard, stopping: trio.Event, trigger: trio.Event, grace: float
) -> None:
    await stopping.wait()
    with trio.move_on_after(CLOSE_SOCKETS_SECONDS):
        await guard.wait_no_sockets()
    trigger.set()
    await trio.sleep(grace + ABORT_AFTER_SECONDS)
    await guard.abort()


async def open_listener(host: str, port: int, *, user_timeout: float) -> socket.socket:
    """Open the listening socket. Accepted connections inherit its options.

    Raises:
        OSError: the name is unknown, or the address is in use or not ours.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        millis = int(user_timeout * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, millis)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class _Relay(trio.TaskStatus[list[str]]):
    """Turns Hypercorn's "started" with its list of texts into ours with an address."""

    def __init__(self, outer: trio.TaskStatus[Address], address: Address) -> None:
        self._outer = outer
        self._address = address

    def started(self, value: object = None) -> None:
        self._outer.started(self._address)


def _configure(listener: socket.socket, grace: float) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.accesslog = None
    config.errorlog = logging.getLogger("pipelit.web.hypercorn")
    config.include_server_header = False
    config.graceful_timeout = grace
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.read_timeout = None
    config.websocket_max_message_size = MAX_FRAME_BYTES
    config.websocket_ping_interval = None
    return config

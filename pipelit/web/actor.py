"""The web server as an actor: started last, stopped first."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
import trio

from pipelit.actors.runtime import Actor, Directive, Message, System
from pipelit.errors import PipelitError
from pipelit.web.app import WebApp
from pipelit.web.server import USER_TIMEOUT_SECONDS, Address, open_listener, serve

log = structlog.get_logger(__name__)


class CannotListen(PipelitError):
    """The address is taken, not ours or unknown. `reason`: the system's words."""

    def __init__(self, host: str, port: int, reason: OSError) -> None:
        why = reason.strerror or str(reason)
        super().__init__(f"Cannot listen on {host}:{port}: {why}. Choose another with --port.")


async def require_address(host: str, port: int) -> None:
    """Make sure that the address can be listened on, before anything else is started.

    Raises:
        CannotListen: it cannot.
    """
    try:
        listener = await open_listener(host, port, user_timeout=USER_TIMEOUT_SECONDS)
    except OSError as error:
        raise CannotListen(host, port, error) from error
    await listener.aclose()


class ServerEnded(Message, frozen=True):
    """The server has stopped, as asked."""


class WebServer(Actor[ServerEnded]):
    """Owns the listener. Its app is built when it starts, for then the tree below is up."""

    def __init__(
        self,
        build: Callable[[System, trio.Event], Awaitable[WebApp]],
        *,
        host: str,
        port: int,
        grace: float,
        on_listening: Callable[[Address], None],
    ) -> None:
        self._build = build
        self._host = host
        self._port = port
        self._grace = grace
        self._on_listening = on_listening
        self._stopping = trio.Event()

    async def on_start(self) -> None:
        """Listen; returns once connections are accepted."""
        app = await self._build(self.ctx.system, self._stopping)
        listening = trio.Event()
        self.ctx.start_soon(self._serve, app, listening, name="server")
        await listening.wait()

    async def receive(self, message: ServerEnded) -> None:
        """Nothing is left to serve."""
        self.ctx.stop()

    async def on_drain(self) -> None:
        """Say goodbye to sockets and let requests end."""
        self._stopping.set()

    async def _serve(self, app: WebApp, listening: trio.Event) -> None:
        run = partial(
            serve,
            app,
            host=self._host,
            port=self._port,
            stopping=self._stopping,
            grace=self._grace,
        )
        async with trio.open_nursery() as nursery:
            try:
                address = await nursery.start(run)
            except OSError as error:
                raise CannotListen(self._host, self._port, error) from error
            self._on_listening(address)
            listening.set()
        self.ctx.post(ServerEnded())


def escalate_if_not_listening(error: Exception) -> Directive:
    """Decide about a crash: an address that cannot be listened on does not get better."""
    return Directive.ESCALATE if isinstance(error, CannotListen) else Directive.RESTART

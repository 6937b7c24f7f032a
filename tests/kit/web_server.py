"""A real server on a free port for tests of the web mechanism, and raw clients for it."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import httpx2
import msgspec
import trio

from pipelit.clock import Ids
from pipelit.errors import Unauthenticated
from pipelit.services.principal import Principal
from pipelit.web.app import SocketEndpoint, WebApp, WebOptions, build_app
from pipelit.web.call import Services
from pipelit.web.routing import Route
from pipelit.web.server import Address, serve
from tests.kit.witness import Witness

ADA = Principal(user_id=1, username="ada", role="admin", key_id=1)
BOB = Principal(user_id=2, username="bob", role="normal", key_id=2)
KEYS = {"ada-key": ADA, "bob-key": BOB}


async def authenticate(token: str) -> Principal:
    """Know two users by their keys."""
    await trio.lowlevel.checkpoint()
    if token == "revoked-key":
        raise Unauthenticated("API key has been revoked.")
    try:
        return KEYS[token]
    except KeyError:
        raise Unauthenticated("Invalid or missing API key.") from None


async def no_sockets(*_: object) -> None:
    """End every WebSocket at once."""


class Running(msgspec.Struct, frozen=True):
    """A server under test."""

    address: Address
    stopping: trio.Event
    stopped: trio.Event
    client: httpx2.AsyncClient
    observed: list[tuple[str, str, int, float]]

    async def connect(self) -> trio.SocketStream:
        """Open a bare TCP connection."""
        return await trio.open_tcp_stream(self.address.host, self.address.port)


def make_app(
    api: Iterable[Route] = (),
    root: Iterable[Route] = (),
    *,
    stopping: trio.Event,
    services: Services | None = None,
    serve_socket: SocketEndpoint = no_sockets,
    options: WebOptions | None = None,
    observed: list[tuple[str, str, int, float]] | None = None,
) -> WebApp:
    """Build an application around test routes."""
    seen = [] if observed is None else observed
    return build_app(
        api_routes=api,
        root_routes=root,
        services=services or Services(),
        authenticate=authenticate,
        serve_socket=serve_socket,
        stopping=stopping,
        ids=Ids.seeded(1),
        options=options or WebOptions(),
        observe=lambda *args: seen.append(args),
    )


@asynccontextmanager
async def serving(
    *args: object,
    grace: float = 1.0,
    user_timeout: float = 30.0,
    stopping: trio.Event | None = None,
    adjust: Callable[[WebApp], object] = lambda app: app,
    witness: Witness | None = None,
    **kwargs: object,
) -> AsyncIterator[Running]:
    """Run a server around test routes; other arguments are those of `make_app`.

    Args:
        witness: hears every answer the client gets.
    """
    stopping = trio.Event() if stopping is None else stopping
    stopped, observed = trio.Event(), []
    app = adjust(make_app(*args, stopping=stopping, observed=observed, **kwargs))

    async def run(task_status: trio.TaskStatus[Address]) -> None:
        await serve(
            app,
            host="127.0.0.1",
            port=0,
            stopping=stopping,
            grace=grace,
            user_timeout=user_timeout,
            task_status=task_status,
        )
        stopped.set()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(run)
        # Nothing here speaks TLS, and its context takes 90 ms to build.
        async with httpx2.AsyncClient(
            base_url=address.url,
            trust_env=False,
            verify=False,
            event_hooks={"response": [witness.hear] if witness else []},
        ) as client:
            yield Running(address, stopping, stopped, client, observed)
        nursery.cancel_scope.cancel()

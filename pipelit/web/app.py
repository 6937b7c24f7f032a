"""The web application: routes, sockets and what they need, put together."""

from collections.abc import Awaitable, Callable, Iterable

import msgspec
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart_trio import QuartTrio

from pipelit.clock import Ids
from pipelit.web.acts import Record, record_nothing
from pipelit.web.auth import Authenticator
from pipelit.web.call import Services
from pipelit.web.connection import HttpConnection, SocketConnection
from pipelit.web.dispatch import API_PREFIX, Dispatcher, Observe
from pipelit.web.matching import RouteTable
from pipelit.web.request import Head
from pipelit.web.routing import Route

SocketEndpoint = Callable[[Head, ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]


class WebOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say about the web. Contract: settings.md §2."""

    max_request_bytes: int = 1024 * 1024
    cors_allow_all_origins: bool = False


class WebApp(QuartTrio):
    """Quart-Trio with our dispatch behind its connection hooks. Built by `build_app`."""

    # The framework makes them with this app only, so their narrower parameter is sound.
    asgi_http_class = HttpConnection  # type: ignore[assignment]
    asgi_websocket_class = SocketConnection  # type: ignore[assignment]

    def __init__(
        self, dispatcher: Dispatcher, serve_socket: SocketEndpoint, max_request_bytes: int
    ) -> None:
        super().__init__("pipelit.web", static_folder=None)
        self.dispatcher = dispatcher
        self.serve_socket = serve_socket
        self.max_request_bytes = max_request_bytes


def build_app(
    *,
    api_routes: Iterable[Route],
    root_routes: Iterable[Route],
    services: Services,
    authenticate: Authenticator,
    serve_socket: SocketEndpoint,
    stopping: trio.Event,
    ids: Ids,
    options: WebOptions,
    observe: Observe = lambda *_: None,
    record: Record = record_nothing,
) -> WebApp:
    """Build the application.

    Args:
        api_routes: routes below `/api/v1`.
        root_routes: routes at the root: probes, documentation, metrics.
        stopping: set when the server begins to stop; API requests then get 503.
        observe: told after every answer, for metrics.
        record: keeps what routes with an `act` did, before they are answered.

    Raises:
        ValueError: two routes have the same method and path.
    """
    table = RouteTable()
    for route in api_routes:
        table.add(route, API_PREFIX)
    for route in root_routes:
        table.add(route)
    dispatcher = Dispatcher(
        table,
        services=services,
        authenticate=authenticate,
        ids=ids,
        cors=options.cors_allow_all_origins,
        is_stopping=stopping.is_set,
        observe=observe,
        record=record,
    )
    return WebApp(dispatcher, serve_socket, options.max_request_bytes)

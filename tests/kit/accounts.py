"""A real server with the routes of accounts and credentials, and people who call it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import httpx2
import trio
from sqlalchemy import Connection, insert, update
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from pipelit.actors.hub import Board
from pipelit.clock import Clock, Ids
from pipelit.llm import catalogue
from pipelit.llm.types import ProviderSpec
from pipelit.net.gateway import Gateway
from pipelit.net.http import HttpClient
from pipelit.services.agents import AgentsService
from pipelit.services.api_keys import KeyEvents, describe_key
from pipelit.services.auth import AuthService
from pipelit.services.authenticator import Authenticator
from pipelit.services.credentials import CredentialsService
from pipelit.services.gateway import GatewaySync
from pipelit.services.live import LiveFeed
from pipelit.services.mfa import MfaService
from pipelit.services.passwords import Passwords
from pipelit.services.permits import Permits
from pipelit.services.sessions import Sessions
from pipelit.services.user_keys import UserKeysService
from pipelit.services.users import UsersService
from pipelit.store import Store, schema
from pipelit.store.queries import keys
from pipelit.store.secrets import Secrets, new_key
from pipelit.web.app import WebOptions, build_app
from pipelit.web.call import Services
from pipelit.web.routes import agents, auth, credentials, mfa, users
from pipelit.web.server import Address, serve
from pipelit.web.ws.endpoint import SocketEndpoint
from tests.kit.gateway import no_gateway
from tests.kit.witness import witness_of

API_ROUTES = (
    *auth.ROUTES,
    *mfa.ROUTES,
    *users.ROUTES,
    *agents.ROUTES,
    *credentials.ROUTES,
)


class Providers(Protocol):
    """The outside, as the credentials service asks it."""

    async def test(self, spec: ProviderSpec) -> str: ...

    async def list(self, spec: ProviderSpec) -> list[str]: ...


class RealProviders:
    """Asks over the network, as the product does."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def test(self, spec: ProviderSpec) -> str:
        return await catalogue.test_provider(spec, self._http)

    async def list(self, spec: ProviderSpec) -> list[str]:
        return await catalogue.list_models(spec, self._http)


class FakeProviders:
    """Stands for the outside: remembers what it was asked and answers what it was told to."""

    def __init__(self) -> None:
        self.asked: list[ProviderSpec] = []
        self.error = ""
        self.models: list[str] = []

    async def test(self, spec: ProviderSpec) -> str:
        self.asked.append(spec)
        await trio.lowlevel.checkpoint()
        return self.error

    async def list(self, spec: ProviderSpec) -> list[str]:
        self.asked.append(spec)
        await trio.lowlevel.checkpoint()
        return self.models


class Caller:
    """Somebody with or without a key. Paths are those of the contract, below `/api/v1`."""

    def __init__(self, client: httpx2.AsyncClient, key: str | None = None) -> None:
        self._client = client
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def get(self, path: str) -> httpx2.Response:
        return await self._send("GET", path)

    async def post(self, path: str, body: Any = None) -> httpx2.Response:
        return await self._send("POST", path, body)

    async def patch(self, path: str, body: Any) -> httpx2.Response:
        return await self._send("PATCH", path, body)

    async def delete(self, path: str) -> httpx2.Response:
        return await self._send("DELETE", path)

    async def _send(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        url = f"/api/v1{path}"
        if body is None:
            return await self._client.request(method, url, headers=self._headers)
        return await self._client.request(method, url, headers=self._headers, json=body)


class AccountServer:
    """The running server and a way behind it, for what no route can do yet."""

    def __init__(self, client: httpx2.AsyncClient, store: Store, events: KeyEvents) -> None:
        self.anyone = Caller(client)
        self.client = client
        self.store = store
        self._events = events

    def with_key(self, key: str) -> Caller:
        return Caller(self.client, key)

    @asynccontextmanager
    async def socket(self, key: str) -> AsyncIterator[WebSocketConnection]:
        """Open a WebSocket."""
        url = str(self.client.base_url).replace("http:", "ws:").rstrip("/")
        async with open_websocket_url(f"{url}/ws/?token={key}") as socket:
            yield socket

    async def setup(self) -> Caller:
        """Make the first user, ada, over HTTP."""
        body = {"username": "ada", "password": "correct horse"}
        answer = await self.anyone.post("/auth/setup/", body)
        return self.with_key(answer.json()["key"])

    async def log_in(self, username: str = "ada", password: str = "correct horse") -> str:
        """Log in with a password; return the session key."""
        body = {"username": username, "password": password}
        key: str = (await self.anyone.post("/auth/token/", body)).json()["key"]
        return key

    async def add_user(self, username: str, **values: Any) -> Caller:
        """Make a normal user with a key, whose text is the name."""
        now = Clock().now()
        row = {"username": username, "created_at": now, **values}
        key = describe_key(username, name="test", created_at=now)

        def add(conn: Connection) -> int:
            statement = insert(schema.users).values(**row).returning(schema.users.c.id)
            return keys.insert_key(conn, conn.execute(statement).scalar_one(), key)

        await self.store.write(add)
        return self.with_key(username)

    async def set_user(self, username: str, /, **values: Any) -> None:
        users = schema.users
        statement = update(users).where(users.c.username == username).values(**values)
        await self.store.write(lambda conn: conn.execute(statement).rowcount)

    async def set_key(self, name: str, **values: Any) -> None:
        """Change the keys of a name, and announce it."""
        table = schema.api_keys
        statement = update(table).where(table.c.name == name).values(**values)
        ids = await self.store.write(
            lambda conn: list(conn.scalars(statement.returning(table.c.id)))
        )
        self._events.revoke(ids)


async def end_of(socket: WebSocketConnection) -> tuple[int, str | None]:
    """Wait a second for the server to close *socket*; return code and reason."""
    with trio.fail_after(1):
        try:
            while True:
                await socket.get_message()
        except ConnectionClosed as closed:
            # The client library leaves its socket to the garbage collector when the server closes.
            await trio.aclose_forcefully(socket._stream)
            return closed.reason.code, closed.reason.reason


@asynccontextmanager
async def account_server(
    store: Store,
    directory: Path,
    providers: Providers,
    *,
    clock: Clock | None = None,
    gateway: Gateway | None = None,
) -> AsyncIterator[AccountServer]:
    """Serve accounts and credentials on a free port, and WebSockets without events."""
    clock, ids, events = clock or Clock(), Ids(), KeyEvents()
    authenticator = Authenticator(store, clock, events)
    stopping = trio.Event()
    app = build_app(
        api_routes=API_ROUTES,
        root_routes=(),
        services=Services(
            *_services(store, directory, providers, clock, events, gateway or no_gateway())
        ),
        authenticate=authenticator.authenticate,
        serve_socket=SocketEndpoint(
            LiveFeed(Board(), store, authenticator), authenticator.authenticate, stopping
        ),
        stopping=stopping,
        ids=ids,
        options=WebOptions(),
    )
    run = partial(serve, app, host="127.0.0.1", port=0, stopping=stopping, grace=1.0)
    async with trio.open_nursery() as nursery:
        address: Address = await nursery.start(run)
        # Nothing here speaks TLS, and its context takes 90 ms to build.
        async with httpx2.AsyncClient(
            base_url=address.url,
            trust_env=False,
            verify=False,
            event_hooks={"response": [witness_of(*API_ROUTES).hear]},
        ) as client:
            yield AccountServer(client, store, events)
        nursery.cancel_scope.cancel()


def _services(
    store: Store,
    directory: Path,
    providers: Providers,
    clock: Clock,
    events: KeyEvents,
    gateway: Gateway,
) -> tuple[object, ...]:
    ids, secrets = Ids(), Secrets(new_key())
    passwords, permits = Passwords(cost=4), Permits()
    sessions = Sessions(store, clock, ids, events)
    return (
        AuthService(
            store,
            clock,
            ids,
            sessions=sessions,
            permits=permits,
            workspaces_dir=directory / "workspaces",
            passwords=passwords,
        ),
        MfaService(store, clock, ids, secrets, permits=permits, sessions=sessions),
        UsersService(store, clock, events, passwords=passwords),
        UserKeysService(store, clock, ids, events),
        AgentsService(store, events),
        CredentialsService(
            store,
            clock,
            secrets,
            test_provider=providers.test,
            list_models=providers.list,
            gateway=GatewaySync(gateway),
        ),
    )

"""The composition root: builds the server from its settings. The only place that wires.

Contract: operations.md §5. The tree it builds: docs/actors.md, ARCHITECTURE.md.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import click
import msgspec
import trio

from pipelit import __version__
from pipelit.actors import paths
from pipelit.actors.chats import ChatSession
from pipelit.actors.execution import ExecutionParts
from pipelit.actors.hub import Board, Hub, Publisher
from pipelit.actors.leases import Lease
from pipelit.actors.manager import Manager
from pipelit.actors.node_task import NodeRunner
from pipelit.actors.plans import Plans
from pipelit.actors.reconciler import Reconciler
from pipelit.actors.runtime import (
    ChildSpec,
    FamilySpec,
    Mailbox,
    Record,
    RestartLimit,
    RestartLimitExceeded,
    SupervisorSpec,
    System,
    open_system,
)
from pipelit.actors.store_writer import StoreWriter, escalate_on_corruption
from pipelit.clock import Clock, Ids
from pipelit.engine.limits import SizeLimits
from pipelit.errors import PipelitError
from pipelit.llm.catalogue import list_models, test_provider
from pipelit.llm.locality import is_local
from pipelit.llm.prices import Prices, load_prices
from pipelit.llm.provider import ProviderCache
from pipelit.llm.types import ProviderSpec
from pipelit.logs import log_supervision
from pipelit.net.broker import ping_broker
from pipelit.net.egress import EgressPolicy
from pipelit.net.http import HttpClient
from pipelit.net.resolver import SystemResolver
from pipelit.nodes.agent import AgentParts, agent_component
from pipelit.nodes.agent_model import ModelParts
from pipelit.nodes.base import Component, NodeServices
from pipelit.nodes.registry import TOOLS, build_components, find_component
from pipelit.nodes.rules import RuleJudge
from pipelit.nodes.templates import Templates
from pipelit.nodes.worker import WorkerPool
from pipelit.services.api_keys import KeyEvents
from pipelit.services.auth import AuthService
from pipelit.services.authenticator import Authenticator
from pipelit.services.canvas import Canvas
from pipelit.services.chats import ChatsService
from pipelit.services.credentials import CredentialsService, NoProvider
from pipelit.services.edges import EdgesService
from pipelit.services.executions import ExecutionsService
from pipelit.services.live import LiveFeed
from pipelit.services.nodes import NodesService
from pipelit.services.passwords import Passwords
from pipelit.services.workflows import WorkflowsService
from pipelit.settings import Settings
from pipelit.store import Store
from pipelit.store.open import OpenStore, StoreConfig, open_store
from pipelit.store.queries.journal import Owner
from pipelit.web.actor import WebServer, escalate_if_not_listening
from pipelit.web.app import WebApp, WebOptions, build_app
from pipelit.web.call import Services
from pipelit.web.routes import auth, chat, credentials, edges, executions, nodes, workflows
from pipelit.web.routes import system as system_routes
from pipelit.web.routes.executions import Stopping
from pipelit.web.routes.system import HealthChecks, Readiness
from pipelit.web.server import Address
from pipelit.web.ws.endpoint import SocketEndpoint

API_ROUTES = (
    *auth.ROUTES,
    *workflows.ROUTES,
    *nodes.ROUTES,
    *edges.ROUTES,
    *credentials.ROUTES,
    *executions.ROUTES,
    *chat.ROUTES,
)

CHAT_IDLE = 900.0
MAX_STALL = 5.0
"""Seconds without a commit, though some wait, after which the server is not ready."""
MANAGER_MAILBOX = 20_000
HUB_MAILBOX = 50_000


@dataclass(frozen=True, kw_only=True)
class World:
    """What a server takes from outside: time, chance, the command line's voice."""

    clock: Clock
    ids: Ids
    say: Callable[[str], None]
    """Tells the operator one sentence."""
    on_listening: Callable[[Address], None]


@dataclass(frozen=True, kw_only=True)
class Base:
    """What the tree stands on: opened before it, closed after it."""

    settings: Settings
    world: World
    opened: OpenStore
    board: Board
    keys: KeyEvents
    pool: WorkerPool
    http: HttpClient
    """For workflows."""
    provider_http: HttpClient
    providers: ProviderCache
    resolver: SystemResolver
    prices: Prices

    @property
    def owner(self) -> Owner:
        """Who writes for executions here."""
        return Owner(self.opened.node_id, self.opened.epoch)


async def serve(settings: Settings) -> int:
    """Run the server until a signal ends it; return the exit code.

    A first SIGTERM or SIGINT stops in order, a second one at once.
    """

    def say(text: str) -> None:
        click.echo(text, err=True)

    world = World(
        clock=Clock(),
        ids=Ids(),
        say=say,
        on_listening=lambda address: say(f"Pipelit is ready: {address.url}"),
    )
    code = 0
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_serve_until, signals, settings, world, nursery)
    except* (PipelitError, OSError, ValueError) as group:
        for sentence in _sentences(group):
            say(sentence)
        code = 1
    return code


async def _serve_until(
    signals: AsyncIterator[int], settings: Settings, world: World, nursery: trio.Nursery
) -> None:
    """Serve until the first signal; the second one ends the process at once."""
    async with run_server(settings, world):
        await anext(signals)
        nursery.start_soon(_exit_on, signals)
    nursery.cancel_scope.cancel()


async def _exit_on(signals: AsyncIterator[int]) -> None:
    await anext(signals)
    os._exit(1)


@asynccontextmanager
async def run_server(settings: Settings, world: World) -> AsyncIterator[System]:
    """Run a whole server for as long as the block lasts; the block begins when it is ready."""
    async with AsyncExitStack() as stack:
        base = await _open_base(settings, world, stack)
        root = build_root(base)
        system = await stack.enter_async_context(
            open_system(root, wall=lambda: world.clock.now().timestamp(), sinks=(_log_record,))
        )
        yield system


async def _open_base(settings: Settings, world: World, stack: AsyncExitStack) -> Base:
    config = StoreConfig(
        database_url=settings.database_url,
        data_dir=settings.data_dir,
        encryption_key=settings.field_encryption_key.get_secret_value() or None,
        now=world.clock.now(),
        new_node_id=world.ids.uuid(),
    )
    prices = await trio.to_thread.run_sync(load_prices, settings.model_prices)
    policy = EgressPolicy.parse(
        settings.egress_allow, own_urls=(settings.searxng_url, settings.gateway_url)
    )
    resolver = SystemResolver()
    http = HttpClient(policy, "workflow", resolver=resolver)
    provider_http = HttpClient(policy, "provider", resolver=resolver)
    raw = provider_http.raw_client()
    opened = await stack.enter_async_context(open_store(config, say=world.say))
    stack.push_async_callback(http.aclose)
    stack.push_async_callback(provider_http.aclose)
    stack.push_async_callback(raw.aclose)
    return Base(
        settings=settings,
        world=world,
        opened=opened,
        board=Board(),
        keys=KeyEvents(),
        pool=await stack.enter_async_context(WorkerPool()),
        http=http,
        provider_http=provider_http,
        providers=ProviderCache(raw),
        resolver=resolver,
        prices=prices,
    )


def build_root(base: Base) -> SupervisorSpec:
    """Describe the supervision tree: started top to bottom, stopped bottom to top."""
    settings, store, world = base.settings, base.opened.store, base.world
    parts = build_execution_parts(base)
    grace = settings.shutdown_grace_seconds
    shared = not settings.database_url.startswith("sqlite")
    return SupervisorSpec(
        id="root",
        limit=RestartLimit(3, within=60),
        children=(
            SupervisorSpec(
                id=paths.STORE,
                children=(
                    ChildSpec(
                        id="writer",
                        kind="store",
                        start=lambda: StoreWriter(store),
                        grace=10,
                        decide=escalate_on_corruption,
                    ),
                ),
            ),
            ChildSpec(
                id="hub",
                kind="hub",
                start=lambda: Hub(base.board, store, world.clock),
                mailbox=Mailbox(capacity=HUB_MAILBOX),
            ),
            ChildSpec(
                id="lease", kind="lease", start=lambda: Lease(store, base.owner, shared=shared)
            ),
            SupervisorSpec(id="executions"),
            ChildSpec(
                id="manager",
                kind="manager",
                start=lambda: Manager(
                    parts, max_running=settings.max_concurrent_executions, grace=grace
                ),
                mailbox=Mailbox(capacity=MANAGER_MAILBOX),
            ),
            FamilySpec(
                id="chats",
                kind="chat",
                start=lambda thread_id: ChatSession(thread_id, store),
                idle_after=CHAT_IDLE,
                mailbox=Mailbox(capacity=64),
                detail=lambda thread_id: {"thread_id": thread_id},
            ),
            ChildSpec(
                id="reconciler",
                kind="reconciler",
                start=lambda: Reconciler(
                    store=store,
                    owner=base.owner,
                    clock=world.clock,
                    zombie_threshold=settings.zombie_execution_threshold_seconds,
                ),
            ),
            ChildSpec(
                id="web",
                kind="web",
                start=lambda: WebServer(
                    partial(build_web, base),
                    host=settings.host,
                    port=settings.port,
                    grace=grace,
                    on_listening=world.on_listening,
                ),
                grace=grace + 5,
                decide=escalate_if_not_listening,
            ),
        ),
    )


def build_execution_parts(base: Base) -> ExecutionParts:
    """Build what executions run with."""
    settings, store, world = base.settings, base.opened.store, base.world
    services = NodeServices(clock=world.clock, ids=world.ids, http=base.http)
    components = build_node_components(base)
    return ExecutionParts(
        store=store,
        owner=base.owner,
        clock=world.clock,
        ids=world.ids,
        plans=Plans(store),
        runner=NodeRunner(
            store=store,
            services=services,
            expressions=Templates(base.pool),
            component_of=partial(find_component, components),
        ),
        max_parallel=settings.max_parallel_nodes,
        max_messages=settings.max_conversation_messages,
        size_limits=SizeLimits(
            node_output=settings.max_node_output_bytes, state=settings.max_state_bytes
        ),
    )


def build_node_components(base: Base) -> dict[str, Component]:
    """Build what each component type runs."""
    credentials_service = build_credentials(base)

    async def find_credential(
        credential_id: int,
    ) -> ProviderSpec | Literal["missing", "not_llm"]:
        found = await credentials_service.provider_spec(credential_id)
        if isinstance(found, NoProvider):
            return "missing" if found is NoProvider.MISSING else "not_llm"
        return found

    models = ModelParts(
        providers=base.providers,
        find_credential=find_credential,
        prices=base.prices,
        is_local=lambda spec: is_local(spec.base_url, base.resolver),
    )
    return {
        **build_components(RuleJudge(base.pool, base.world.clock)),
        "agent": agent_component(AgentParts(models=models, tools=TOOLS)),
    }


def build_credentials(base: Base) -> CredentialsService:
    """Build the credentials service, which also opens credentials for the engine."""
    return CredentialsService(
        base.opened.store,
        base.world.clock,
        base.opened.secrets,
        test_provider=lambda spec: test_provider(spec, base.provider_http),
        list_models=lambda spec: list_models(spec, base.provider_http),
    )


def build_web(base: Base, system: System, stopping: trio.Event) -> WebApp:
    """Build the web application on a running tree."""
    settings, store, world = base.settings, base.opened.store, base.world
    authenticator = Authenticator(store, world.clock, base.keys)
    feed = LiveFeed(base.board, store, authenticator)
    canvas = Canvas(store, Publisher(system.ref(paths.HUB)).publish)
    default_limit = settings.max_execution_seconds
    execution_service = ExecutionsService(
        store,
        world.clock,
        world.ids,
        manager=system.ref(paths.MANAGER),
        default_limit=default_limit,
    )
    services = Services(
        AuthService(
            store,
            world.clock,
            world.ids,
            base.keys,
            workspaces_dir=settings.data_dir / "workspaces",
            passwords=Passwords(),
        ),
        build_credentials(base),
        WorkflowsService(
            canvas,
            world.clock,
            executions=execution_service,
            default_limit=lambda: default_limit,
        ),
        NodesService(canvas, world.clock, world.ids),
        EdgesService(canvas),
        execution_service,
        ChatsService(
            store,
            world.clock,
            world.ids,
            session=system.family(paths.CHATS).ref,
            default_limit=default_limit,
        ),
        feed,
        Stopping(stopping),
        HealthChecks(
            version=__version__,
            database=store.check,
            readiness=partial(_readiness, store, stopping),
            broker=partial(ping_broker, settings.redis_url) if settings.redis_url else None,
        ),
        system_routes.describe(API_ROUTES, system_routes.ROUTES, version=__version__),
    )
    return build_app(
        api_routes=API_ROUTES,
        root_routes=system_routes.ROUTES,
        services=services,
        authenticate=authenticator.authenticate,
        serve_socket=SocketEndpoint(feed, authenticator.authenticate, stopping),
        stopping=stopping,
        ids=world.ids,
        options=WebOptions(
            max_request_bytes=settings.max_request_bytes,
            cors_allow_all_origins=settings.cors_allow_all_origins,
        ),
    )


def _readiness(store: Store, stopping: trio.Event) -> Readiness:
    """Tell what `/ready` says; it is asked only while the listener is up."""
    if stopping.is_set():
        return "stopping"
    statistics = store.statistics()
    stalled = statistics.stalled_seconds >= MAX_STALL
    return "overloaded" if stalled or not statistics.storage_ok else "ready"


def _log_record(record: Record) -> None:
    log_supervision(msgspec.to_builtins(record))


def _sentences(group: BaseExceptionGroup[Any]) -> list[str]:
    """Say in one sentence each why the server did not start or could not go on."""
    sentences = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            sentences += _sentences(error)
        elif isinstance(error, RestartLimitExceeded) and error.__cause__ is not None:
            sentences.append(f"{error}: {error.__cause__}")
        else:
            sentences.append(str(error))
    return sentences

"""What a server stands on: opened before its tree, closed after it."""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from pipelit.actors.hub import Board
from pipelit.actors.runtime import Faults
from pipelit.actors.stuck import StuckFinder
from pipelit.actors.turns import Subjects
from pipelit.assembly.traces import open_traces
from pipelit.clock import Clock, Ids
from pipelit.llm.prices import Prices, load_prices
from pipelit.llm.provider import ProviderCache
from pipelit.metrics import Metrics
from pipelit.net.egress import EgressPolicy
from pipelit.net.gateway import Gateway
from pipelit.net.http import HttpClient
from pipelit.net.resolver import SystemResolver
from pipelit.nodes.worker import WorkerPool
from pipelit.services.api_keys import KeyEvents
from pipelit.services.model_lists import ModelLists
from pipelit.services.settings_service import LiveSettings
from pipelit.settings import Settings
from pipelit.store.open import OpenStore, StoreConfig, open_store
from pipelit.store.queries.journal import Owner
from pipelit.web.server import Address

if TYPE_CHECKING:
    from pipelit.tracing import Traces


@dataclass(frozen=True, kw_only=True)
class World:
    """What a server takes from outside: time, chance, the command line's voice."""

    clock: Clock
    ids: Ids
    say: Callable[[str], None]
    """Tells the operator one sentence."""
    on_listening: Callable[[Address], None]
    faults: Faults | None = None
    """Where a test interferes with actors."""


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
    platform_http: HttpClient
    """Reaches this server, too: for `platform_api`, which asks nobody else."""
    gateway: Gateway
    providers: ProviderCache
    resolver: SystemResolver
    prices: Prices
    live: LiveSettings
    subjects: Subjects
    """Epics that are being changed."""
    model_lists: ModelLists
    metrics: Metrics
    traces: "Traces | None"
    stuck: StuckFinder

    @property
    def owner(self) -> Owner:
        """Who writes for executions here."""
        return Owner(self.opened.node_id, self.opened.epoch)


async def open_base(settings: Settings, world: World, stack: AsyncExitStack) -> Base:
    """Open the store and the clients; *stack* closes them in reverse order.

    Raises:
        StartError: the database cannot be used; one sentence for the operator.
        PriceFileError: `MODEL_PRICES` cannot be read.
        ValueError: an entry of `EGRESS_ALLOW` is malformed.
    """
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
    metrics = Metrics()
    blocked = metrics.egress_blocked
    http = HttpClient(policy, "workflow", resolver=resolver, on_blocked=blocked)
    provider_http = HttpClient(policy, "provider", resolver=resolver, on_blocked=blocked)
    own = EgressPolicy.parse(settings.egress_allow, own_urls=(settings.platform_base_url,))
    platform_http = HttpClient(own, "workflow", resolver=resolver, on_blocked=blocked)
    raw = provider_http.raw_client()
    opened = await stack.enter_async_context(
        open_store(config, say=world.say, on_commit=metrics.committed)
    )
    stack.push_async_callback(http.aclose)
    stack.push_async_callback(provider_http.aclose)
    stack.push_async_callback(platform_http.aclose)
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
        platform_http=platform_http,
        gateway=Gateway(
            http,
            url=settings.gateway_url,
            admin_token=settings.gateway_admin_token.get_secret_value(),
            send_token=settings.gateway_send_token.get_secret_value(),
        ),
        providers=ProviderCache(raw),
        resolver=resolver,
        prices=prices,
        live=LiveSettings(settings),
        subjects=Subjects(),
        model_lists=ModelLists(),
        metrics=metrics,
        traces=await open_traces(os.environ, world.say, stack),
        stuck=StuckFinder(
            opened.store,
            Owner(opened.node_id, opened.epoch),
            max_running=settings.max_concurrent_executions,
        ),
    )

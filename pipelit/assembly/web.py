"""The web application on a running tree: services, routes, sockets, probes."""

from contextlib import AbstractAsyncContextManager
from functools import partial

import trio

from pipelit import __version__
from pipelit.actors import paths
from pipelit.actors.hub import Publisher
from pipelit.actors.runtime import Inbox, Message, System
from pipelit.actors.turns import Turns
from pipelit.assembly.accounts import build_accounts
from pipelit.assembly.base import Base
from pipelit.assembly.canvas import build_canvas
from pipelit.assembly.engine import build_credentials
from pipelit.assembly.operations import build_operations
from pipelit.assembly.resources import build_resources
from pipelit.assembly.starts import build_entrances, build_starter
from pipelit.net.broker import ping_broker
from pipelit.services.audit_log import AuditLog
from pipelit.services.authenticator import Authenticator
from pipelit.services.canvas import Canvas
from pipelit.services.executions import ExecutionsService
from pipelit.services.live import LiveFeed
from pipelit.store import Store
from pipelit.web.app import WebApp, WebOptions, build_app
from pipelit.web.call import Services
from pipelit.web.openapi import ApiDocument
from pipelit.web.routes import (
    agents,
    auth,
    chat,
    credentials,
    edges,
    epics,
    executions,
    inbound,
    memory,
    mfa,
    node_schedules,
    nodes,
    operations,
    resume,
    retry,
    schedules,
    tasks,
    users,
    webhooks,
    workflows,
    workspaces,
)
from pipelit.web.routes import settings as settings_routes
from pipelit.web.routes import system as system_routes
from pipelit.web.routes.executions import Stopping
from pipelit.web.routes.system import HealthChecks, Readiness
from pipelit.web.ws.endpoint import SocketEndpoint
from pipelit.web.ws.origin import allow_any, allow_own

API_ROUTES = (
    *auth.ROUTES,
    *mfa.ROUTES,
    *users.ROUTES,
    *agents.ROUTES,
    *workflows.ROUTES,
    *nodes.ROUTES,
    *node_schedules.ROUTES,
    *edges.ROUTES,
    *credentials.ROUTES,
    *executions.ROUTES,
    *resume.ROUTES,
    *retry.ROUTES,
    *chat.ROUTES,
    *webhooks.ROUTES,
    *inbound.ROUTES,
    *epics.ROUTES,
    *tasks.ROUTES,
    *schedules.ROUTES,
    *memory.ROUTES,
    *workspaces.ROUTES,
    *settings_routes.ROUTES,
    *operations.ROUTES,
)
ROOT_ROUTES = (*system_routes.ROUTES, *operations.ROOT_ROUTES)

MAX_STALL = 5.0
"""Seconds without a commit, though some wait, after which the server is not ready."""


async def build_web(base: Base, system: System, stopping: trio.Event) -> WebApp:
    """Build the web application on a running tree."""
    settings, store, world = base.settings, base.opened.store, base.world
    authenticator = Authenticator(store, world.clock, base.keys)
    feed = LiveFeed(base.board, store, authenticator)
    publish = Publisher(system.ref(paths.HUB)).publish
    canvas, turns = Canvas(store, publish), Turns(store, publish, base.subjects)
    starter = build_starter(base, system)
    audit_log = AuditLog(store, world.clock, keep=settings.audit_log_max)
    execution_service = ExecutionsService(store, starter, manager=system.ref(paths.MANAGER))
    services = Services(
        *build_accounts(base),
        build_credentials(base),
        *build_canvas(base, system, canvas, execution_service),
        execution_service,
        *build_entrances(base, system, starter),
        *build_resources(base, turns, execution_service),
        feed,
        audit_log,
        Stopping(stopping),
        HealthChecks(
            version=__version__,
            database=store.check,
            readiness=partial(_readiness, store, stopping),
            broker=partial(ping_broker, settings.redis_url) if settings.redis_url else None,
        ),
        *build_operations(base, system),
        await trio.to_thread.run_sync(_describe),
    )
    return build_app(
        api_routes=API_ROUTES,
        root_routes=ROOT_ROUTES,
        services=services,
        authenticate=authenticator.authenticate,
        serve_socket=SocketEndpoint(
            feed,
            authenticator.authenticate,
            stopping,
            base.metrics,
            partial(_attach, system),
            allow_any
            if settings.cors_allow_all_origins
            else partial(allow_own, base_url=settings.platform_base_url),
        ),
        stopping=stopping,
        ids=world.ids,
        options=WebOptions(
            max_request_bytes=settings.max_request_bytes,
            cors_allow_all_origins=settings.cors_allow_all_origins,
        ),
        observe=base.metrics.request_answered,
        record=audit_log.record,
    )


def _attach(system: System, name: str, user_id: int) -> AbstractAsyncContextManager[Inbox[Message]]:
    """Give a socket its place in the tree, where it is seen and can be cancelled."""
    return system.attach(paths.SOCKETS, name, kind="socket", detail={"user_id": user_id})


def _describe() -> ApiDocument:
    """Write the documentation of all routes: noticeable work, so for a thread."""
    return system_routes.describe(API_ROUTES, ROOT_ROUTES, version=__version__)


def _readiness(store: Store, stopping: trio.Event) -> Readiness:
    """Tell what `/ready` says; it is asked only while the listener is up."""
    if stopping.is_set():
        return "stopping"
    statistics = store.statistics()
    stalled = statistics.stalled_seconds >= MAX_STALL
    return "overloaded" if stalled or not statistics.storage_ok else "ready"

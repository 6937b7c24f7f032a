"""The composition root: builds the server from its settings. The only place that wires.

Contract: operations.md §5. The tree it builds: docs/actors.md, ARCHITECTURE.md.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import click
import msgspec
import trio

from pipelit.actors import paths
from pipelit.actors.chats import ChatSession
from pipelit.actors.delivery import Delivery
from pipelit.actors.error_dispatch import ErrorDispatch
from pipelit.actors.expiries import Expiries
from pipelit.actors.hub import Announcement, Hub
from pipelit.actors.leases import Lease, escalate_when_lost
from pipelit.actors.manager import Manager
from pipelit.actors.reconciler import Reconciler
from pipelit.actors.retention import Retention, Rules
from pipelit.actors.roll_up import RollUp
from pipelit.actors.runtime import (
    AnySpec,
    ChildSpec,
    FamilySpec,
    Mailbox,
    Record,
    RestartLimit,
    RestartLimitExceeded,
    Sink,
    SupervisorSpec,
    System,
    open_system,
)
from pipelit.actors.schedule_keeper import ScheduleKeeper
from pipelit.actors.schedules import Schedule
from pipelit.actors.store_writer import StoreWriter, escalate_on_corruption
from pipelit.actors.stuck import StuckWatch
from pipelit.assembly.base import Base, World, open_base
from pipelit.assembly.engine import build_execution_parts, build_schedule_parts
from pipelit.assembly.web import build_web
from pipelit.clock import Clock, Ids
from pipelit.errors import PipelitError
from pipelit.logs import log_supervision
from pipelit.metrics import Metrics
from pipelit.services.supervision import broadcast_to
from pipelit.settings import Settings
from pipelit.web.actor import WebServer, escalate_if_not_listening, require_address

CHAT_IDLE = 900.0
SCHEDULE_IDLE = 60.0
MANAGER_MAILBOX = 20_000
HUB_MAILBOX = 50_000


async def serve(settings: Settings, greet: Callable[[str], None]) -> int:
    """Run the server until a signal ends it; return the exit code.

    A first SIGTERM or SIGINT stops in order, a second one at once.

    Args:
        settings: read and checked.
        greet: called with the server's URL once it is ready.
    """

    def say(text: str) -> None:
        click.echo(text, err=True)

    world = World(
        clock=Clock(),
        ids=Ids(),
        say=say,
        on_listening=lambda address: greet(address.url),
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
    await require_address(settings.host, settings.port)
    async with AsyncExitStack() as stack:
        base = await open_base(settings, world, stack)
        root = partial(build_root, base)
        system = await stack.enter_async_context(
            open_system(
                root,
                wall=lambda: world.clock.now().timestamp(),
                sinks=(_log_record, _counter(base.metrics), broadcast_to(base.board)),
                on_lag=base.metrics.loop_was_late,
                faults=world.faults,
            )
        )
        yield system


def build_root(base: Base, system: System) -> SupervisorSpec:
    """Describe the supervision tree: started top to bottom, stopped bottom to top."""
    return SupervisorSpec(
        id="root",
        limit=RestartLimit(3, within=60),
        children=(
            *_foundation(base),
            *_after_ends(base),
            *_runs(base, system),
            *_jobs(base),
            *_rounds(base),
            *_outside(base),
        ),
    )


def _foundation(base: Base) -> tuple[AnySpec, ...]:
    """What all others stand on."""
    settings, store, world = base.settings, base.opened.store, base.world
    shared = not settings.database_url.startswith("sqlite")
    return (
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
            start=lambda: Hub(base.board, store, world.clock, observe=_observer(base)),
            mailbox=Mailbox(capacity=HUB_MAILBOX),
        ),
        ChildSpec(
            id="lease",
            kind="lease",
            start=lambda: Lease(store, base.owner, shared=shared),
            decide=escalate_when_lost,
        ),
    )


def _after_ends(base: Base) -> tuple[AnySpec, ...]:
    """Who follows up what executions leave behind when they end."""
    settings, store, world = base.settings, base.opened.store, base.world
    return (
        ChildSpec(
            id="delivery",
            kind="delivery",
            start=lambda: Delivery(store, world.clock, base.gateway),
        ),
        ChildSpec(
            id="roll_up",
            kind="roll_up",
            start=lambda: RollUp(store, world.clock, base.subjects),
            mailbox=Mailbox(capacity=MANAGER_MAILBOX),
        ),
        ChildSpec(
            id="errors",
            kind="error_dispatch",
            start=lambda: ErrorDispatch(
                store,
                world.clock,
                world.ids,
                default_limit=settings.max_execution_seconds,
            ),
        ),
    )


def _runs(base: Base, system: System) -> tuple[AnySpec, ...]:
    """Executions, and who has them run."""
    settings, store, world = base.settings, base.opened.store, base.world
    parts = build_execution_parts(base, system)
    grace = settings.shutdown_grace_seconds
    return (
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
            id="expiries",
            kind="expiries",
            start=lambda: Expiries(store, world.clock),
        ),
    )


def _jobs(base: Base) -> tuple[AnySpec, ...]:
    """Schedules, and who wakes them."""
    store, world = base.opened.store, base.world
    schedule_parts = build_schedule_parts(base)
    return (
        FamilySpec(
            id="schedules",
            kind="schedule",
            start=lambda job_id: Schedule(job_id, schedule_parts),
            idle_after=SCHEDULE_IDLE,
            detail=lambda job_id: {"schedule_id": job_id},
        ),
        ChildSpec(
            id="schedule_keeper",
            kind="schedule_keeper",
            start=lambda: ScheduleKeeper(store=store, owner=base.owner, clock=world.clock),
        ),
    )


def _rounds(base: Base) -> tuple[AnySpec, ...]:
    """Who looks after everything again and again."""
    settings, store, world = base.settings, base.opened.store, base.world
    kept = Rules(settings.execution_retention_days, settings.execution_retention_max)
    return (
        ChildSpec(
            id="reconciler",
            kind="reconciler",
            start=lambda: Reconciler(
                store=store,
                owner=base.owner,
                clock=world.clock,
                zombie_threshold=lambda: base.live.zombie_execution_threshold_seconds,
            ),
        ),
        ChildSpec(
            id="retention",
            kind="retention",
            start=lambda: Retention(store, world.clock, kept),
        ),
        ChildSpec(id="stuck", kind="stuck_watch", start=lambda: StuckWatch(base.stuck)),
    )


def _outside(base: Base) -> tuple[AnySpec, ...]:
    """Who talks to clients: started last, stopped first."""
    settings, world = base.settings, base.world
    grace = settings.shutdown_grace_seconds
    return (
        SupervisorSpec(id="sockets"),
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
    )


def _log_record(record: Record) -> None:
    log_supervision(msgspec.to_builtins(record))


def _counter(metrics: Metrics) -> Sink:
    return lambda record: metrics.supervised(record.event, record.kind)


def _observer(base: Base) -> Callable[[Announcement], object]:
    def observe(said: Announcement) -> None:
        event = said.type, said.execution_id, said.timestamp or 0.0, said.data
        base.metrics.hear(*event)
        if base.traces is not None:
            base.traces.hear(*event)

    return observe


def _sentences(group: BaseExceptionGroup[Any]) -> list[str]:
    """Say in one sentence each why the server did not start or could not go on."""
    sentences = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            sentences += _sentences(error)
        elif isinstance(error, RestartLimitExceeded) and error.__cause__ is not None:
            cause = error.__cause__
            # Our own errors are written for the operator; others need to be told whose they are.
            sentences.append(str(cause) if isinstance(cause, PipelitError) else f"{error}: {cause}")
        else:
            sentences.append(str(error))
    return sentences

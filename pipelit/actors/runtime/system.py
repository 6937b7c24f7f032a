"""A whole system: its tree, its records, its beginning and its ordered end."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Never, TypeVar, overload

import trio

from pipelit.actors.runtime.attach import Inbox, attach
from pipelit.actors.runtime.directory import Directory, Faults
from pipelit.actors.runtime.errors import ActorDied
from pipelit.actors.runtime.family import Family
from pipelit.actors.runtime.mailbox import Mailbox
from pipelit.actors.runtime.messages import Exit, Message
from pipelit.actors.runtime.records import Detail, Record, RecordBus, Sink, Subscription
from pipelit.actors.runtime.ref import ActorRef
from pipelit.actors.runtime.snapshot import (
    ActorInfo,
    KindCount,
    count_kinds,
    list_actors,
    take_snapshot,
)
from pipelit.actors.runtime.spec import AnySpec, ChildSpec, SupervisorSpec, check_id
from pipelit.actors.runtime.supervisor import SupervisorCell
from pipelit.actors.runtime.watchdog import LoopWatch, StuckWatch

M = TypeVar("M", bound=Message)

_SUBSCRIPTION_BUFFER = 1_000


class System:
    """A running tree. Made by `open_system`; used from the Trio run that it lives in."""

    def __init__(
        self,
        root: SupervisorSpec | Callable[["System"], SupervisorSpec],
        *,
        wall: Callable[[], float],
        rng: Random,
        sinks: Sequence[Sink],
        ring: int,
        perf: Callable[[], float] | None,
        on_lag: Callable[[float], object] | None,
        faults: Faults | None,
    ) -> None:
        self._bus = RecordBus(wall=wall, ring=ring, sinks=sinks)
        self._stuck = StuckWatch()
        self.directory = Directory(
            self, self._bus, wall=wall, rng=rng, stuck=self._stuck, faults=faults
        )
        """Who is where; the runtime's own."""
        spec = root if isinstance(root, SupervisorSpec) else root(self)
        self._root = SupervisorCell(self.directory, None, spec)
        self._loop = None if perf is None else LoopWatch(self.directory, perf, on_lag)

    def ref(self, path: str) -> ActorRef[Any]:
        """Return a ref to *path*, whether or not somebody lives there."""
        return ActorRef(self.directory, path, self.directory.find(path))

    def family(self, path: str) -> Family[Any]:
        """Return the family at *path*."""
        return Family(self.directory, path)

    @overload
    def start_child(self, parent_path: str, spec: ChildSpec[M]) -> ActorRef[M]: ...
    @overload
    def start_child(self, parent_path: str, spec: AnySpec) -> ActorRef[Never]: ...

    def start_child(self, parent_path: str, spec: AnySpec | ChildSpec[M]) -> ActorRef[Any]:
        """Start a child of the supervisor at *parent_path*. Its ref can be used at once.

        Raises:
            ActorExists: somebody lives at the path.
            ActorDied: there is no such supervisor, or it is stopping.
        """
        parent = self.directory.find(parent_path)
        if not isinstance(parent, SupervisorCell):
            raise ActorDied(parent_path)
        child = parent.add(spec)
        return ActorRef(self.directory, child.path, child)

    @overload
    def attach(
        self,
        parent_path: str,
        id: str,
        *,
        kind: str,
        protocol: type[M],
        mailbox: Mailbox = ...,
        detail: Detail | None = ...,
    ) -> AbstractAsyncContextManager[Inbox[M]]: ...
    @overload
    def attach(
        self,
        parent_path: str,
        id: str,
        *,
        kind: str,
        mailbox: Mailbox = ...,
        detail: Detail | None = ...,
    ) -> AbstractAsyncContextManager[Inbox[Message]]: ...

    def attach(
        self,
        parent_path: str,
        id: str,  # noqa: A002 - as in the specs
        *,
        kind: str,
        protocol: type[Message] = Message,
        mailbox: Mailbox = Mailbox(),  # noqa: B008 - frozen
        detail: Detail | None = None,
    ) -> AbstractAsyncContextManager[Inbox[Any]]:
        """Give the calling task a mailbox and a place in the tree for the length of the block.

        The task stays whose it is. Cancelling the ref cancels the block; stopping it makes
        `Inbox.wait` raise `InboxClosed`, and cancels the block after five seconds.

        Raises:
            ActorExists: somebody lives at the path.
            ActorDied: there is no such supervisor, or it is stopping.
        """
        check_id(id)
        return attach(
            self.directory, parent_path, id, kind=kind, mailbox=mailbox, detail=detail or {}
        )

    def subscribe(
        self, after: int | None = None, *, buffer: int = _SUBSCRIPTION_BUFFER
    ) -> Subscription:
        """Return a reader of the supervision stream, to be entered with `async with`.

        *after*: replay kept records with a higher `seq` first; `None`: only what comes.
        *buffer*: records kept for a slow reader; it loses its oldest, `missed` counts them.
        """
        return self._bus.subscribe(after, buffer)

    def records(
        self,
        since: int = 0,
        *,
        event: str | None = None,
        kind: str | None = None,
        actor: str | None = None,
        limit: int | None = None,
    ) -> tuple[Record, ...]:
        """Return kept records with `seq` > *since*, oldest first. *actor* is a path prefix."""
        return self._bus.records(since, event=event, kind=kind, actor=actor, limit=limit)

    @property
    def last_seq(self) -> int:
        """`seq` of the newest record, 0 before the first."""
        return self._bus.last_seq

    @property
    def dead_letters(self) -> int:
        """Messages that reached nobody so far, throttled records included."""
        return self._bus.dead_letters

    @overload
    def snapshot(self) -> ActorInfo: ...
    @overload
    def snapshot(self, path: str, *, depth: int | None = None) -> ActorInfo | None: ...

    def snapshot(self, path: str = "/", *, depth: int | None = None) -> ActorInfo | None:
        """Describe the actor at *path* and what is below; `None` if nobody lives there.

        *depth*: how many levels below; `None`: all.
        """
        cell = self.directory.find(path) if path != "/" else self._root
        return None if cell is None else take_snapshot(cell, depth)

    def list_actors(
        self, *, kind: str | None = None, offset: int = 0, limit: int = 50
    ) -> tuple[list[ActorInfo], int]:
        """Describe a page of the tree in depth-first order, and count all that match."""
        return list_actors(self._root, kind=kind, offset=offset, limit=limit)

    def count_kinds(self) -> dict[str, KindCount]:
        """Count the actors by kind."""
        return count_kinds(self.directory.cells.values())

    def loop_lag(self, share: float = 0.99) -> float:
        """Return the loop lag, in seconds, that this *share* of recent rounds did not exceed."""
        return 0.0 if self._loop is None else self._loop.lag(share)

    async def stop(self, reason: str = "shutdown") -> Exit:
        """Stop the tree in order, bottom to top, and wait for it.

        Not for an actor's turn, which would wait for its own end.
        """
        self._root.request_stop(reason)
        return await self._root.wait_gone()

    async def wait_closed(self) -> Exit:
        """Wait until the tree has ended: it was stopped, or the root gave up."""
        return await self._root.wait_gone()

    async def run(self, body: trio.CancelScope) -> None:
        """Run the tree; cancel *body* if the root gives up. For `open_system`."""
        if self._loop is not None:
            trio.lowlevel.add_instrument(self._loop)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stuck.run)
                await self._root.run()
                nursery.cancel_scope.cancel()
        finally:
            if self._loop is not None:
                trio.lowlevel.remove_instrument(self._loop)
            self._bus.close()
        if self._root.failed_by is not None:
            body.cancel(reason="the root supervisor gave up")

    async def wait_up(self) -> None:
        """Wait until every static child was up once, or the root has ended."""
        await self._root.settled.wait()

    @property
    def is_running(self) -> bool:
        """The tree has not ended."""
        return self._root.exit is None

    @property
    def failure(self) -> Exception | None:
        """Why the root gave up, if it did."""
        return self._root.failed_by


@asynccontextmanager
async def open_system(
    root: SupervisorSpec | Callable[[System], SupervisorSpec],
    *,
    wall: Callable[[], float] = time.time,
    rng: Random | None = None,
    sinks: Sequence[Sink] = (),
    ring: int = 10_000,
    perf: Callable[[], float] | None = time.perf_counter,
    on_lag: Callable[[float], object] | None = None,
    faults: Faults | None = None,
) -> AsyncIterator[System]:
    """Run the tree that *root* describes for the length of the block.

    The block begins when every static child was up once, and the tree is stopped in order when it
    ends. If the root gives up, the block is cancelled.

    Args:
        root: the tree, or what describes it with refs to those who will live in it.
        wall: Unix seconds, for records and snapshots.
        rng: source of jitter.
        sinks: called with every record, in the loop; they must be quick.
        ring: how many records are kept.
        perf: real seconds for the loop watch; `None` switches it off (mock clocks).
        on_lag: told how long each round of the loop took, in seconds; must be quick.
        faults: where a test interferes.

    Raises:
        RestartLimitExceeded: the root gave up; `__cause__` is the last crash.
    """
    system = System(
        root,
        wall=wall,
        rng=rng or Random(),
        sinks=sinks,
        ring=ring,
        perf=perf,
        on_lag=on_lag,
        faults=faults,
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(system.run, nursery.cancel_scope)
            await system.wait_up()
            if system.failure is None:
                try:
                    yield system
                finally:
                    if system.is_running:
                        await system.stop("closed")  # noqa: ASYNC102 - each child has its grace
    except BaseExceptionGroup as group:
        if system.failure is not None:
            errors = [system.failure, *group.exceptions]
            raise BaseExceptionGroup("the root gave up, and more went wrong", errors) from None
        if len(group.exceptions) == 1:  # the block's own error, without our nursery around it
            raise group.exceptions[0] from None  # noqa: ASYNC123 - alone in its group
        raise
    if system.failure is not None:
        raise system.failure

"""A kit for tests of actors: a small system on a mock clock, probes, and planted faults.

Deterministic: the wall clock is derived from Trio's, chance is seeded, nothing sleeps.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Generic, TypeVar

import trio
import trio.testing

from pipelit.actors.runtime.actor import Actor
from pipelit.actors.runtime.attach import Inbox
from pipelit.actors.runtime.automaton import LIFE_EVENTS, find_fault
from pipelit.actors.runtime.cell import ActorCell
from pipelit.actors.runtime.errors import ActorDied
from pipelit.actors.runtime.mailbox import Mailbox
from pipelit.actors.runtime.messages import Message
from pipelit.actors.runtime.records import Record
from pipelit.actors.runtime.ref import ActorRef
from pipelit.actors.runtime.restart import Backoff, Decide, Restart, RestartLimit
from pipelit.actors.runtime.spec import AnySpec, ChildSpec, SupervisorSpec
from pipelit.actors.runtime.system import System, open_system

M = TypeVar("M", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
T = TypeVar("T", bound=Message)

WALL_START = 1_700_000_000.0
PROBE_TIMEOUT = 60.0


class PlantedFaults:
    """What a test has planted; the runtime asks before each turn and each reply."""

    def __init__(self) -> None:
        self._crashes: dict[str, list[Exception]] = {}
        self._delays: dict[str, float] = {}

    def crash_next(self, path: str, error: Exception) -> None:
        """Let the next turn of the actor at *path* raise *error* instead of beginning."""
        self._crashes.setdefault(path, []).append(error)

    def delay_replies(self, path: str, seconds: float) -> None:
        """Hold back every reply of the actor at *path*; 0 ends it."""
        self._delays[path] = seconds

    def before_turn(self, path: str) -> None:
        """Raise what was planted for *path*."""
        if crashes := self._crashes.get(path):
            raise crashes.pop(0)

    def reply_delay(self, path: str) -> float:
        """Return how long replies of *path* are held back."""
        return self._delays.get(path, 0.0)


class Probe(Generic[M]):
    """An inbox that a test looks into."""

    def __init__(self, inbox: Inbox[M]) -> None:
        self.inbox = inbox
        self.ref: ActorRef[M] = inbox.ref

    async def expect(self, kind: type[T]) -> T:
        """Wait for the next message, at most a mock minute; it must be a *kind*."""
        with trio.fail_after(PROBE_TIMEOUT):
            message = await self.inbox.wait()
        assert isinstance(message, kind), f"expected a {kind.__name__}, got {message!r}"
        return message


class Kit:
    """What a test of actors needs. Made by `open_kit`."""

    def __init__(self, system: System, faults: PlantedFaults) -> None:
        self.system = system
        self.faults = faults
        self.started_at = trio.current_time()
        self._names = 0

    def spawn(
        self,
        start: Callable[[], Actor[M_contra]],
        *,
        name: str | None = None,
        parent: str = "/",
        kind: str = "test",
        restart: Restart = Restart.TEMPORARY,
        mailbox: Mailbox = Mailbox(),  # noqa: B008 - frozen
        grace: float = 5.0,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        limit: RestartLimit | None = None,
        decide: Decide | None = None,
    ) -> ActorRef[M_contra]:
        """Start an actor that ends with the test."""
        spec = ChildSpec(
            id=name or self._name(),
            kind=kind,
            start=start,
            restart=restart,
            mailbox=mailbox,
            grace=grace,
            backoff=backoff,
            limit=limit,
            decide=decide,
        )
        return self.system.start_child(parent, spec)

    @asynccontextmanager
    async def probe(self, name: str | None = None) -> AsyncIterator[Probe[Any]]:
        """Attach the test itself, with a large mailbox."""
        async with self.system.attach(
            "/", name or self._name(), kind="probe", mailbox=Mailbox(10_000)
        ) as inbox:
            yield Probe(inbox)

    def events(self, ref: ActorRef[Any]) -> list[str]:
        """Return the events in the life of *ref*, oldest first."""
        return [record.event for record in self.records(ref) if record.event in LIFE_EVENTS]

    def records(self, ref: ActorRef[Any], event: str | None = None) -> list[Record]:
        """Return the records about *ref*, oldest first."""
        records = self.system.records(actor=ref.path, event=event)
        return [record for record in records if record.actor == ref.path]

    async def wait_for(self, event: str, ref: ActorRef[Any] | None = None) -> Record:
        """Wait, at most a mock hour, until *event* is or was recorded; return the first."""
        with trio.fail_after(3600):
            async with self.system.subscribe(after=0, buffer=100_000) as records:
                async for record in records:
                    if record.event == event and ref in (None, self.system.ref(record.actor)):
                        return record
        raise ActorDied("/")

    async def settle(self) -> None:
        """Wait until nothing can happen without time passing."""
        await trio.testing.wait_all_tasks_blocked()

    def crash_next(self, ref: ActorRef[Any], error: Exception) -> None:
        """Let the next turn of *ref* raise *error* instead of beginning."""
        self.faults.crash_next(ref.path, error)

    def crash_in_own_task(self, ref: ActorRef[Any], error: Exception) -> None:
        """Let an own task of *ref* raise *error*."""

        async def fail() -> None:
            await trio.lowlevel.checkpoint()
            raise error

        cell = self.system.directory.find(ref.path)
        if not isinstance(cell, ActorCell):
            raise ActorDied(ref.path)
        cell.start_own_task(fail, (), None)

    def delay_replies(self, ref: ActorRef[Any], seconds: float) -> None:
        """Hold back every reply of *ref* for so long; 0 ends it."""
        self.faults.delay_replies(ref.path, seconds)

    def _name(self) -> str:
        self._names += 1
        return f"t{self._names}"


@asynccontextmanager
async def open_kit(
    children: Sequence[AnySpec] = (),
    *,
    limit: RestartLimit = RestartLimit(),  # noqa: B008 - frozen
    seed: int = 0,
    ring: int = 1_000_000,
    check: bool = True,
) -> AsyncIterator[Kit]:
    """Run a small system for the length of the block, then check its whole record stream.

    Meant for a Trio run with `MockClock(autojump_threshold=0)`. *ring*: records kept; the check
    needs all of them.

    Raises:
        AssertionError: the records are not those of a legal system (promise 16).
    """
    root = SupervisorSpec(id="root", children=tuple(children), limit=limit)
    faults = PlantedFaults()
    system: System | None = None
    try:
        async with open_system(
            root,
            wall=lambda: WALL_START + trio.current_time(),
            rng=Random(seed),
            ring=ring,
            perf=None,
            faults=faults,
        ) as system:
            yield Kit(system, faults)
    finally:
        if system is not None and check:
            fault = find_fault(system.records(), lives=system.directory.lives)
            assert fault is None, fault

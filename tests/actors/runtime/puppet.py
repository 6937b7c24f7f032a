"""An actor whose every move a test decides, and what property tests share."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import trio
from hypothesis import HealthCheck, settings
from trio.testing import MockClock

from pipelit.actors.runtime import (
    Actor,
    ActorRef,
    Exit,
    Message,
    Reply,
    Request,
)


class BoomError(Exception):
    """What a test throws at an actor."""


class Note(Message, frozen=True):
    """Write *text* into the journal."""

    text: str = "note"


class Ping(Request[int], frozen=True):
    """Reply: how many pings this incarnation has seen."""


class Explode(Request[int], frozen=True):
    """Crash. No reply."""

    text: str = "boom"


class Mute(Request[int], frozen=True):
    """A bug: no reply."""


class Nap(Request[str], frozen=True):
    """Wait inside the turn, then reply "rested"."""

    seconds: float = 1.0


class Later(Request[str], frozen=True):
    """Reply when `Answer` comes."""


class Answer(Message, frozen=True):
    """Answer what waits, the oldest first."""


class Refuse(Request[int], frozen=True):
    """Be refused with a `BoomError`."""


class Do(Request[Any], frozen=True):
    """Reply: what `step(puppet)` returns."""

    step: Callable[["Puppet"], Awaitable[Any]]


class Ended(Message, frozen=True):
    """A watched actor has ended."""

    name: str
    exit: Exit


PuppetMessage: TypeAlias = Note | Ping | Explode | Mute | Nap | Later | Answer | Refuse | Do | Ended
PuppetRef: TypeAlias = ActorRef[PuppetMessage]


class Puppet(Actor[PuppetMessage]):
    """Does what it is told. The journal outlives its incarnations."""

    def __init__(self, journal: list[str] | None = None) -> None:
        self.journal: list[str] = [] if journal is None else journal
        self.pings = 0
        self.waiting: list[Reply[str]] = []
        self.exits: list[Ended] = []

    async def receive(self, message: PuppetMessage) -> None:
        match message:
            case Note(text=text):
                self.journal.append(text)
            case Ping():
                self.pings += 1
                self.reply(message, self.pings)
            case Explode(text=text):
                raise BoomError(text)
            case Mute():
                pass
            case Nap(seconds=seconds):
                await trio.sleep(seconds)
                self.reply(message, "rested")
            case Later():
                self.waiting.append(self.defer(message))
            case Answer():
                self.waiting.pop(0).send("at last")
            case Refuse():
                self.refuse(message, BoomError("refused"))
            case Do(step=step):
                self.reply(message, await step(self))
            case Ended(name=name, exit=exit):
                self.exits.append(message)
                self.journal.append(f"{name} {exit.reason}")


class Recorder(Puppet):
    """A puppet that writes down its hooks."""

    async def on_start(self) -> None:
        self.journal.append("start")

    async def on_drain(self) -> None:
        self.journal.append("drain")
        await super().on_drain()

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        self.journal.append(f"stop {exit.reason}")


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run one generated case on a mock clock; a hang is a failure after 10^6 mock seconds."""

    async def bounded() -> None:
        with trio.fail_after(10**6):
            await main()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))


def examples(count: int) -> settings:
    """Return settings for a property test of whole systems."""
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def puppet(journal: list[str] | None = None, kind: type[Puppet] = Puppet) -> partial[Puppet]:
    """Return a factory of puppets that share *journal*."""
    return partial(kind, journal)

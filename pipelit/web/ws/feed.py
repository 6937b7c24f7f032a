"""What the live side asks of the rest of the server: a hub of events, behind a protocol.

The hub knows channels, rights and the store; it never waits for a socket. This side knows sockets,
frames and pace; it never knows who may see what.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

import trio

from pipelit.actors.hub import Copy
from pipelit.services.principal import Principal

TERMINAL_EVENTS = frozenset({"execution_completed", "execution_failed", "execution_cancelled"})
"""Exactly one of these is the last event of an execution."""

EXECUTION_CHANNEL = "execution:"


Event: TypeAlias = Copy
"""One copy of an event, encoded once for all who read it."""

Deliver = Callable[[Event], None]
"""Takes a live event. Called by the hub in its own task; never blocks, never raises."""


CatchUp = Callable[[], None]
"""Told when live events may be lost: what is stored is then to be read. As `Deliver`."""


class Subscriber(Protocol):
    """One reader's place in the hub, as long as `Feed.open` lasts."""

    @property
    def revoked(self) -> trio.Event:
        """Set within 1 s after the reader's key is revoked or expires, or its user is gone."""

    def subscribe(self, channel: str) -> None:
        """Deliver events of *channel* from now on, if the reader may see them. Idempotent.

        Rights are evaluated for each event at delivery, so any text is fine.
        """

    def unsubscribe(self, channel: str) -> None:
        """Deliver nothing of *channel* after this returns. Unknown channels are fine."""


class Feed(Protocol):
    """Live and stored events."""

    def open(
        self, principal: Principal, deliver: Deliver, catch_up: CatchUp
    ) -> AbstractAsyncContextManager[Subscriber]:
        """Register a reader; on leaving, it gets nothing any more."""

    async def last_seq(self, principal: Principal, execution_id: str) -> int:
        """Return the highest stored number; 0 for none, unknown or invisible to *principal*."""

    async def replay(
        self, principal: Principal, execution_id: str, after: int, limit: int
    ) -> Sequence[Event]:
        """Return up to *limit* stored events with a number over *after*, in order.

        Their channel is `execution:<id>`. Empty for an unknown or invisible execution.
        An event is stored before it is delivered, so what was delivered can be read here.
        """


def execution_of(channel: str) -> str | None:
    """Return the execution id of an `execution:<id>` channel, None for other channels."""
    rest = channel.removeprefix(EXECUTION_CHANNEL)
    return rest if rest and rest != channel else None

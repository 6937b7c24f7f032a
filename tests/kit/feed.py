"""An in-memory feed with the hub's rules: store, then deliver; rights checked at delivery."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from pipelit.services.principal import Principal
from pipelit.web.ws.feed import CatchUp, Deliver, Event


class FakeSubscriber:
    """One reader."""

    def __init__(self, principal: Principal, deliver: Deliver, catch_up: CatchUp) -> None:
        self.principal = principal
        self.deliver = deliver
        self.catch_up = catch_up
        self.channels: set[str] = set()
        self.revoked = trio.Event()

    def subscribe(self, channel: str) -> None:
        self.channels.add(channel)

    def unsubscribe(self, channel: str) -> None:
        self.channels.discard(channel)


class FakeFeed:
    """Holds stored events per execution; `hidden` executions are invisible to everybody."""

    def __init__(self) -> None:
        self.stored: dict[str, list[Event]] = {}
        self.subscribers: list[FakeSubscriber] = []
        self.hidden: set[str] = set()
        self.before_replay = trio.lowlevel.checkpoint
        """Awaited at the start of every replay: where a test makes things happen."""

    @asynccontextmanager
    async def open(
        self, principal: Principal, deliver: Deliver, catch_up: CatchUp
    ) -> AsyncIterator[FakeSubscriber]:
        subscriber = FakeSubscriber(principal, deliver, catch_up)
        self.subscribers.append(subscriber)
        try:
            yield subscriber
        finally:
            self.subscribers.remove(subscriber)

    async def last_seq(self, principal: Principal, execution_id: str) -> int:
        await trio.lowlevel.checkpoint()
        events = [] if execution_id in self.hidden else self.stored.get(execution_id, [])
        return len(events)

    async def replay(
        self, principal: Principal, execution_id: str, after: int, limit: int
    ) -> Sequence[Event]:
        await self.before_replay()
        events = [] if execution_id in self.hidden else self.stored.get(execution_id, [])
        return events[after : after + limit]

    def record(self, execution_id: str, kind: str = "node_status", **data: object) -> Event:
        """Store the next event of an execution, then deliver it."""
        event = self.lose(execution_id, kind, **data)
        self.publish(event)
        return event

    def lose(self, execution_id: str, kind: str = "node_status", **data: object) -> Event:
        """Store the next event of an execution, of which the hub never tells."""
        events = self.stored.setdefault(execution_id, [])
        event = make_event(f"execution:{execution_id}", kind, seq=len(events) + 1, **data)
        events.append(event)
        return event

    def restart(self) -> None:
        """Tell everybody that events may be lost."""
        for subscriber in tuple(self.subscribers):
            subscriber.catch_up()

    def publish(self, event: Event) -> None:
        """Deliver a live event to who subscribed and may see it."""
        if event.channel.removeprefix("execution:") in self.hidden:
            return
        for subscriber in tuple(self.subscribers):
            if event.channel in subscriber.channels:
                subscriber.deliver(event)


def make_event(channel: str, kind: str, *, seq: int | None = None, **data: object) -> Event:
    """Encode an event as the hub does."""
    envelope: dict[str, object] = {"type": kind, "channel": channel, "timestamp": 1.5, "data": data}
    if seq is not None:
        envelope["seq"] = seq
    return Event(channel, kind, seq, msgspec.json.encode(envelope))

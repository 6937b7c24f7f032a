"""One client's conversation: answers its frames, forwards its events, replays what it missed."""

from typing import assert_never

import trio

from pipelit.services.principal import Principal
from pipelit.web.ws import frames
from pipelit.web.ws.channels import Channel, Channels
from pipelit.web.ws.feed import Event, Feed, Subscriber, execution_of
from pipelit.web.ws.frames import Batch, ClientFrame, Pong, Subscribe, Unsubscribe
from pipelit.web.ws.outbox import Close, Outbox

PAGE_SIZE = 50
TOO_MANY = Close(1008, "Too many subscriptions")


class Session:
    """Owned by one socket. Its frames are handled one after the other, in the order they came.

    `pong` is set by the client's answer to the last ping.
    """

    def __init__(
        self, principal: Principal, feed: Feed, outbox: Outbox, nursery: trio.Nursery
    ) -> None:
        """Replays run in *nursery*."""
        self._principal = principal
        self._feed = feed
        self._outbox = outbox
        self._nursery = nursery
        self._channels = Channels()
        self._page_turn = trio.Lock()
        self.pong = trio.Event()

    def deliver(self, event: Event) -> None:
        """Take a live event from the hub."""
        channel = self._channels.find(event.channel)
        if channel is None:
            return
        if channel.misses_before(event):
            self._catch_up(channel)
        if channel.accepts(event):
            self._outbox.put_live(event)

    def catch_up(self) -> None:
        """Look in the store for what the hub may have lost."""
        for channel in self._channels.all():
            if channel.is_followed:
                self._catch_up(channel)

    def _catch_up(self, channel: Channel) -> None:
        if channel.replay is not None:
            channel.is_in_doubt = True  # it reads once more before it ends
            return
        execution_id = execution_of(channel.name)
        assert execution_id is not None, "only executions are followed"
        scope = channel.begin_replay(channel.cursor)
        self._nursery.start_soon(self._replay, channel, execution_id, scope)

    async def handle(self, frame: ClientFrame, subscriber: Subscriber) -> None:
        """Answer one frame."""
        match frame:
            case Subscribe():
                await self._subscribe(frame, subscriber)
            case Unsubscribe(channel):
                subscriber.unsubscribe(channel)
                self._channels.remove(channel)
                self._outbox.put_answer(frames.unsubscribed(channel))
            case Batch(enabled):
                self._outbox.put_batch_switch(enabled=enabled)
            case Pong():
                self.pong.set()
            case _:
                assert_never(frame)

    async def _subscribe(self, frame: Subscribe, subscriber: Subscriber) -> None:
        channel = self._channels.add(frame.channel)
        if channel is None:
            self._outbox.close(TOO_MANY)
            return
        execution_id = execution_of(frame.channel)
        if frame.since is None or execution_id is None:
            subscriber.subscribe(frame.channel)
            self._outbox.put_answer(frames.subscribed(frame.channel, None))
            return
        # Live events are held back before the store is asked: what is published meanwhile is
        # stored by then, so the replay finds it.
        scope = channel.begin_replay(frame.since)
        subscriber.subscribe(frame.channel)
        last_seq = await self._feed.last_seq(self._principal, execution_id)
        channel.cursor = min(frame.since, last_seq)
        self._outbox.put_answer(frames.subscribed(frame.channel, last_seq))
        self._nursery.start_soon(self._replay, channel, execution_id, scope)

    async def _replay(self, channel: Channel, execution_id: str, scope: trio.CancelScope) -> None:
        """Queue the stored events page by page as the client reads, then let live ones through."""
        with scope:
            while True:
                # One page of one channel at a time bounds what a socket holds in memory.
                async with self._page_turn:
                    seen_before, channel.is_in_doubt = channel.newest_seen, False
                    page = await self._feed.replay(
                        self._principal, execution_id, channel.cursor, PAGE_SIZE
                    )
                    if channel.replay is not scope:
                        return  # another replay took over while the store was asked
                    for event in page:
                        self._outbox.put_stored(event)
                        channel.cursor = event.seq or channel.cursor
                    # What was delivered before the read began is stored, so the read has it; what
                    # came during the read may be missing from it.
                    is_complete = seen_before == channel.newest_seen or not channel.is_behind()
                    if len(page) < PAGE_SIZE and is_complete and not channel.is_in_doubt:
                        # Between this decision and the end of the replay nothing is awaited.
                        channel.replay = None
                        return
                    await self._outbox.wait_room()

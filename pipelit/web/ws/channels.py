"""Which channels one socket reads, and how far each has got.

Pure bookkeeping: decides whether a live event is sent, so that replay and live events join without
gap and without duplicate. Contract: websocket.md, "Sequence and replay".
"""

import trio

from pipelit.web.ws.feed import Event, execution_of

MAX_CHANNELS = 200


class Channel:
    """One subscription.

    Invariant: every stored event with a number up to `cursor` was queued, or not wanted.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_execution = execution_of(name) is not None
        self.cursor = 0
        self.newest_seen = 0
        """Highest number the hub delivered; what a replay must still reach."""
        self.replay: trio.CancelScope | None = None
        """The replay under way. Live events then wait in the store, not here."""
        self.is_followed = False
        """The client said where it was: from there on nothing may be missing."""
        self.is_in_doubt = False
        """The hub may have lost something since the replay last read the store."""

    def misses_before(self, event: Event) -> bool:
        """Tell whether the hub lost something between the cursor and a live event."""
        if event.seq is None or not self.is_followed or self.replay is not None:
            return False
        return event.seq > self.cursor + 1

    def accepts(self, event: Event) -> bool:
        """Tell whether a live event is to be queued now, and take note of it."""
        if not self.is_execution:
            return True
        if event.seq is None:
            return self.replay is None
        self.newest_seen = max(self.newest_seen, event.seq)
        if self.replay is not None or event.seq <= self.cursor:
            return False
        self.cursor = event.seq
        return True

    def begin_replay(self, after: int) -> trio.CancelScope:
        """Start from *after*; a replay under way is cancelled."""
        self.stop_replay()
        self.is_followed = True
        self.cursor = after
        self.replay = trio.CancelScope()
        return self.replay

    def is_behind(self) -> bool:
        """Tell whether the hub delivered something that the replay has not read yet."""
        return self.newest_seen > self.cursor

    def stop_replay(self) -> None:
        """Cancel the replay under way, if any."""
        if self.replay is not None:
            self.replay.cancel()
            self.replay = None


class Channels:
    """The subscriptions of one socket."""

    def __init__(self) -> None:
        self._by_name: dict[str, Channel] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def all(self) -> tuple[Channel, ...]:
        """Return all subscriptions."""
        return tuple(self._by_name.values())

    def find(self, name: str) -> Channel | None:
        """Return the subscription to *name*, or None."""
        return self._by_name.get(name)

    def add(self, name: str) -> Channel | None:
        """Return the subscription to *name*, a new one if needed; None when there are too many."""
        channel = self._by_name.get(name)
        if channel is None:
            if len(self._by_name) >= MAX_CHANNELS:
                return None
            channel = self._by_name[name] = Channel(name)
        return channel

    def remove(self, name: str) -> None:
        """Forget the subscription; its replay stops."""
        channel = self._by_name.pop(name, None)
        if channel is not None:
            channel.stop_replay()

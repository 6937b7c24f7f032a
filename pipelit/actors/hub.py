"""Channels and readers: every event passes here once and reaches whoever may see it.

The hub never waits for a socket: delivering is a call that appends to a bounded outbox. Rights are
judged for each event at delivery. Events of executions arrive with their audience; for canvas
events the workflow's owner is looked up first, in one own task, so that their order stays.

Contract: websocket.md.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import msgspec
import structlog
import trio

from pipelit.actors.runtime import Actor, ActorError, ActorRef, Message
from pipelit.clock import Clock
from pipelit.store import Store, StoreError
from pipelit.store.queries.executions import StoredEvent, workflow_audience

MAX_CANVAS_WAITING = 10_000
MAX_RENAMED = 10_000

_ENCODER = msgspec.json.Encoder()

log = structlog.get_logger(__name__)


class Audience(msgspec.Struct, frozen=True):
    """Whom an execution's events are for."""

    workflow_id: int
    workflow_slug: str
    owner_id: int
    user_id: int | None


class Announcement(Message, frozen=True):
    """An event of an execution, after its commit. `seq` None: live only."""

    execution_id: str
    audience: Audience
    type: str
    data: dict[str, Any]
    seq: int | None = None
    timestamp: float | None = None


class Canvas(Message, frozen=True):
    """An event that is not an execution's: of a workflow's canvas or of an epic."""

    channel: str
    type: str
    data: dict[str, Any]


class CanvasReady(Message, frozen=True):
    """A canvas event whose workflow's owner is known; `owner_id` None: nobody may see it."""

    event: Canvas
    owner_id: int | None
    is_public: bool


class Copy(msgspec.Struct, frozen=True):
    """One copy of an event, encoded once for all who read it."""

    channel: str
    type: str
    seq: int | None
    json: bytes


class Reader(Protocol):
    """Who reads, as far as rights go."""

    @property
    def user_id(self) -> int:
        """The reader's user."""

    @property
    def acts_for(self) -> int | None:
        """The user an agent user stands for."""

    @property
    def is_admin(self) -> bool:
        """Sees everything."""


HubMessage: TypeAlias = Announcement | Canvas | CanvasReady


class Subscription:
    """One reader's channels. Owned by the hub's board."""

    def __init__(
        self,
        reader: Reader,
        deliver: Callable[[Copy], None],
        catch_up: Callable[[], None] = lambda: None,
    ) -> None:
        """*catch_up* hears when events may be lost; neither it nor *deliver* waits or raises."""
        self.reader = reader
        self.deliver = deliver
        self.catch_up = catch_up
        self.channels: set[str] = set()

    def may_see(self, *people: int | None) -> bool:
        """Whether the reader is an admin or one of *people*, or acts for one."""
        reader = self.reader
        return reader.is_admin or bool({reader.user_id, reader.acts_for} - {None} & set(people))


class Board:
    """Who reads which channel. Survives restarts of the hub's actor; one thread, no waiting."""

    def __init__(self) -> None:
        self._readers: dict[str, dict[Subscription, None]] = {}
        self._renamed: OrderedDict[int, str] = OrderedDict()  # {workflow: slug}, newest last

    def subscribe(self, subscription: Subscription, channel: str) -> None:
        """Deliver events of *channel* from now on."""
        subscription.channels.add(channel)
        self._readers.setdefault(channel, {})[subscription] = None

    def unsubscribe(self, subscription: Subscription, channel: str) -> None:
        """Deliver nothing of *channel* any more."""
        subscription.channels.discard(channel)
        readers = self._readers.get(channel, {})
        readers.pop(subscription, None)
        if not readers:
            self._readers.pop(channel, None)

    def leave(self, subscription: Subscription) -> None:
        """Forget a reader."""
        for channel in tuple(subscription.channels):
            self.unsubscribe(subscription, channel)

    def note_slug(self, workflow_id: int, slug: str) -> None:
        """Remember the slug of a changed workflow: its running executions know an older one."""
        self._renamed[workflow_id] = slug
        self._renamed.move_to_end(workflow_id)
        if len(self._renamed) > MAX_RENAMED:
            self._renamed.popitem(last=False)

    def slug_of(self, audience: Audience) -> str:
        """Return the present slug of an execution's workflow."""
        return self._renamed.get(audience.workflow_id, audience.workflow_slug)

    def catch_up(self) -> None:
        """Tell every reader that events may be lost."""
        everybody = (reader for readers in self._readers.values() for reader in readers)
        for reader in dict.fromkeys(everybody):
            reader.catch_up()

    def readers(self, channel: str) -> tuple[Subscription, ...]:
        """Return who reads *channel* now."""
        return tuple(self._readers.get(channel, ()))


class Hub(Actor[HubMessage]):
    """Delivers. Its mailbox is large and refuses when full: a reader then sees a jump of `seq`."""

    def __init__(
        self,
        board: Board,
        store: Store,
        clock: Clock,
        *,
        observe: Callable[[Announcement], object] = lambda _: None,
    ) -> None:
        """*observe* hears of every event of an execution, for metrics; never raises."""
        self._observe = observe
        self._board = board
        self._store = store
        self._clock = clock
        self._canvas: deque[Canvas] = deque()
        self._canvas_arrived = trio.Event()

    async def on_start(self) -> None:
        """Start the look-up of canvas events."""
        # Who reads already lost the event that the incarnation before this one died of.
        self._board.catch_up()
        self.ctx.start_soon(self._look_up, name="canvas")

    async def receive(self, message: HubMessage) -> None:
        """Deliver an event, or send it through the look-up first."""
        match message:
            case Announcement():
                self._observe(message)
                self._announce(message)
            case Canvas():
                if message.type == "workflow_updated":
                    self._board.note_slug(message.data["id"], message.data["slug"])
                if not self._board.readers(message.channel):
                    return
                if len(self._canvas) < MAX_CANVAS_WAITING:
                    self._canvas.append(message)
                    self._canvas_arrived.set()
            case CanvasReady(event=event, owner_id=owner_id, is_public=is_public):
                copy = self._copy(event.channel, event.type, event.data)
                for reader in self._board.readers(event.channel):
                    if owner_id is not None and (is_public or reader.may_see(owner_id)):
                        reader.deliver(copy)

    def _announce(self, said: Announcement) -> None:
        channels = [f"execution:{said.execution_id}"]
        if said.type != "chat_delta":
            channels.append(f"workflow:{self._board.slug_of(said.audience)}")
        for channel in channels:
            readers = self._board.readers(channel)
            if not readers:
                continue
            copy = self._copy(
                channel,
                said.type,
                said.data,
                seq=said.seq,
                timestamp=said.timestamp,
                execution_id=said.execution_id,
            )
            for reader in readers:
                if reader.may_see(said.audience.owner_id, said.audience.user_id):
                    reader.deliver(copy)

    def _copy(self, channel: str, kind: str, data: Mapping[str, Any], **known: Any) -> Copy:
        timestamp = known.pop("timestamp", None) or self._clock.now().timestamp()
        return envelope(channel, kind, timestamp, data, **known)

    async def _look_up(self) -> None:
        while True:
            while not self._canvas:
                self._canvas_arrived = trio.Event()
                await self._canvas_arrived.wait()
            event = self._canvas.popleft()
            try:
                owner_id, is_public = await self._rights(event)
            except StoreError as error:
                # Nobody can be asked who may see it: the event is lost, like one too many.
                log.warning("canvas event dropped", channel=event.channel, error=str(error))
                continue
            self.ctx.post(CanvasReady(event, owner_id, is_public))

    async def _rights(self, event: Canvas) -> tuple[int | None, bool]:
        kind, _, name = event.channel.partition(":")
        if kind == "epic":  # shared by every user (README.md §9)
            return 0, True
        # After a rename or a deletion only the id in the event still names the workflow.
        workflow_id = event.data["id"] if event.type.startswith("workflow_") else None
        found = await self._store.read(lambda conn: workflow_audience(conn, name, workflow_id))
        return found or (None, False)


def envelope(
    channel: str,
    kind: str,
    timestamp: float,
    data: Mapping[str, Any],
    *,
    seq: int | None = None,
    execution_id: str | None = None,
) -> Copy:
    """Encode an event for one channel. Contract: websocket.md "Event envelope"."""
    body: dict[str, Any] = {"type": kind, "channel": channel, "timestamp": timestamp}
    if seq is not None:
        body["seq"] = seq
    if execution_id is not None:
        body["execution_id"] = execution_id
    body["data"] = data
    return Copy(channel, kind, seq, _ENCODER.encode(body))


def stored_copy(execution_id: str, event: StoredEvent) -> Copy:
    """Return a stored event as the channel of its execution carries it."""
    return envelope(
        f"execution:{execution_id}",
        event.type,
        event.timestamp,
        event.data,
        seq=event.seq,
        execution_id=execution_id,
    )


class Publisher:
    """Hands events to the hub from anywhere: never waits, never fails the caller."""

    def __init__(self, hub: ActorRef[HubMessage]) -> None:
        self._hub = hub

    def announce(self, said: Announcement) -> None:
        """Publish an event of an execution, after its commit."""
        self._tell(said)

    def publish(self, channel: str, kind: str, data: dict[str, Any]) -> None:
        """Publish an event that is not an execution's, after its commit."""
        self._tell(Canvas(channel, kind, data))

    def _tell(self, message: HubMessage) -> None:
        # A hub that is full or gone costs live events; the rows are the truth, and the runtime
        # records each loss as a dead letter.
        with suppress(ActorError):
            self._hub.tell(message)

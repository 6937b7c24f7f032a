"""A message on its way: who sent it, who waits for the answer, and who waits for whom."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio

from pipelit.actors.runtime.messages import Exit, Message


class Slot:
    """Where one asker waits for one answer. Settled once; what comes later is dropped."""

    __slots__ = ("_asker", "_error", "_value", "abandoned", "settled")

    def __init__(self) -> None:
        self.settled = False
        self.abandoned = False
        """The asker has left: nobody will read the answer."""
        self._asker: trio.lowlevel.Task | None = None
        self._value: object = None
        self._error: Exception | None = None

    @property
    def open(self) -> bool:
        """Somebody still waits here."""
        return not (self.settled or self.abandoned)

    def send(self, value: object) -> None:
        """Answer with *value*, unless there is an answer already."""
        self._settle(value, None)

    def fail(self, error: Exception) -> None:
        """Answer by raising *error*, which must be this asker's own object."""
        self._settle(None, error)

    def _settle(self, value: object, error: Exception | None) -> None:
        if not self.open:
            return
        self.settled = True
        self._value, self._error = value, error
        if self._asker is not None:
            trio.lowlevel.reschedule(self._asker)
            self._asker = None

    async def wait(self) -> object:
        """Wait for the answer. Cancelling marks the request abandoned."""
        if self.settled:
            await trio.lowlevel.checkpoint()
        else:
            self._asker = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abandon)
        # Taken out: the callee's last turn holds this slot until its next one, and a traceback
        # would hold it for ever.
        value, error = self._value, self._error
        self._value = self._error = None
        if error is None:
            return value
        try:
            raise error
        finally:
            del error

    def _abandon(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._asker = None
        self.abandoned = True
        return trio.lowlevel.Abort.SUCCEEDED


class Turn:
    """What the running code does on whose behalf; the current one is in a context variable.

    `via` is the answer that somebody waits for while this turn runs; `asked_by` is that somebody's
    turn. So the chain of turns is the chain of those who wait, as long as each `via` is open.
    """

    __slots__ = (
        "asked_by",
        "busy",
        "holds",
        "log_context",
        "message_type",
        "path",
        "reported",
        "via",
    )

    def __init__(
        self,
        path: str,
        log_context: "LogContext",
        *,
        message_type: str | None = None,
        holds: bool = True,
        via: Slot | None = None,
        asked_by: "Turn | None" = None,
    ) -> None:
        self.path = path
        self.log_context = log_context
        self.message_type = message_type
        self.holds = holds
        """The actor is deaf meanwhile: true for turns and hooks, false for own tasks."""
        self.via = via
        self.asked_by = asked_by
        self.busy = 0.0
        """Seconds of computing so far; kept by the watchdog."""
        self.reported = False

    def find_cycle(self, target: str) -> tuple[str, ...] | None:
        """Return the chain of waiting actors from *target* to here, or `None` if it is free."""
        chain: list[str] = [target]
        turn: Turn | None = self
        while turn is not None and turn.holds:
            chain.append(turn.path)
            if turn.path == target:
                return tuple(reversed(chain))
            if turn.via is None or not turn.via.open:
                return None
            turn = turn.asked_by
        return None


LogContext = dict[str, str | int | float | bool | None]

current_turn: ContextVar[Turn | None] = ContextVar("current_turn", default=None)


_origin: ContextVar[LogContext] = ContextVar("origin", default={})  # noqa: B039 - never changed


class Envelope:
    """A message in a mailbox. It carries the correlation ids of the work it belongs to."""

    __slots__ = ("incoming", "message", "origin", "sender", "slot")

    def __init__(
        self,
        message: Message,
        slot: Slot | None = None,
        *,
        incoming: bool = True,
        origin: LogContext | None = None,
    ) -> None:
        self.origin = _origin.get() if origin is None else origin
        self.message = message
        self.incoming = incoming
        """Somebody else sent it; only such messages keep a member of a family awake."""
        self.slot = slot
        self.sender = current_turn.get()


class ExitNotice:
    """The end of a watched actor; the watcher makes a message of its own protocol from it."""

    __slots__ = ("exit", "on_exit")

    def __init__(self, on_exit: Callable[[Exit], Message], end: Exit) -> None:
        self.on_exit = on_exit
        self.exit = end


def get_log_context() -> LogContext:
    """Return path and correlation ids of the actor that the calling code runs in, and its origin.

    The origin comes first: what an actor knows of itself is said of its own work.
    """
    turn = current_turn.get()
    return _origin.get() if turn is None else {**_origin.get(), **turn.log_context}


def get_origin() -> LogContext:
    """Return what the work at hand is called outside, for instance a request's id."""
    return _origin.get()


def take_origin(envelope: Envelope) -> None:
    """Go on with the work that *envelope* belongs to."""
    _origin.set(envelope.origin)


@contextmanager
def origin(**ids: str) -> Iterator[None]:
    """Name the work of the block; messages sent in it carry the name from actor to actor."""
    token = _origin.set(dict(ids))
    try:
        yield
    finally:
        _origin.reset(token)

"""What people who write actors see: `Actor`, its `Context`, and a later `Reply`."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

import trio

from pipelit.actors.runtime.envelope import LogContext, Slot
from pipelit.actors.runtime.messages import Exit, Message, Request
from pipelit.actors.runtime.records import Detail, DetailValue
from pipelit.actors.runtime.ref import ActorRef

if TYPE_CHECKING:
    from pipelit.actors.runtime.cell import ActorCell
    from pipelit.actors.runtime.system import System

M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)
Ts = TypeVarTuple("Ts")


class Reply(Generic[R_contra]):
    """The answer to a request, to be given later, once. Dies with the incarnation."""

    def __init__(self, slot: Slot, settled: Callable[[Slot], None]) -> None:
        self._slot = slot
        self._settled = settled

    def send(self, value: R_contra) -> None:
        """Answer. A second answer, or one that nobody waits for any more, is dropped."""
        self._slot.send(value)
        self._settled(self._slot)

    def fail(self, error: Exception) -> None:
        """Answer by raising *error* at the asker: a refusal. Give each asker its own object."""
        self._slot.fail(error)
        self._settled(self._slot)


class Timer:
    """A message that is to come. Dies with the incarnation."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def cancel(self) -> None:
        """Stop the timer. A message that it has posted already still arrives."""
        self._scope.cancel()


class Context(Generic[M_contra]):
    """What an actor can do with itself and its surroundings, during one incarnation."""

    def __init__(self, cell: "ActorCell") -> None:
        self._cell = cell

    @property
    def path(self) -> str:
        """Where this actor lives, `/` separated."""
        return self._cell.path

    @property
    def kind(self) -> str:
        """The word for actors like this one."""
        return self._cell.kind

    @property
    def incarnation(self) -> int:
        """1 for the first start, one more per restart."""
        return self._cell.incarnation

    @property
    def detail(self) -> Detail:
        """The correlation ids given in the spec."""
        return self._cell.detail

    @property
    def log_context(self) -> LogContext:
        """Path and correlation ids, for a log line."""
        return self._cell.log_context

    @property
    def system(self) -> "System":
        """The system this actor lives in."""
        return self._cell.directory.system

    @property
    def self_ref(self) -> ActorRef[M_contra]:
        """A ref to this actor, to hand out."""
        return ActorRef(self._cell.directory, self._cell.path, self._cell)

    @property
    def is_stopping(self) -> bool:
        """Somebody asked this actor to stop."""
        return self._cell.is_ending

    def post(self, message: M_contra) -> None:
        """Send *message* to this very incarnation; served before everybody else's, never full."""
        self._cell.post(message)

    def after(self, seconds: float, message: M_contra) -> Timer:
        """Post *message* in so many *seconds*, unless the incarnation ends before."""
        return Timer(self._cell.start_timer(seconds, message))

    def start_soon(
        self,
        fn: Callable[[*Ts], Awaitable[object]],
        *args: *Ts,
        name: str | None = None,
    ) -> trio.CancelScope:
        """Start an own task. It ends with the incarnation; if it raises, the actor crashes.

        An own task computes and posts; it does not touch the actor's state.

        Returns:
            The scope that cancels just this task.
        """
        return self._cell.start_own_task(fn, args, name)

    def watch(self, ref: ActorRef[Any], on_exit: Callable[[Exit], M_contra]) -> None:
        """Post `on_exit(exit)` once when *ref* is gone for good, at once if it is already.

        Restarts and passivation are not exits. A second watch of one path replaces the first.
        """
        self._cell.watch(ref, on_exit)

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Forget the watch of *ref*. A notice that was posted already still arrives."""
        self._cell.unwatch(ref)

    def stop(self) -> None:
        """End this actor after the running turn: `normal`, or `shutdown` if that was asked."""
        self._cell.stop_now()

    def emit(self, event: str, **detail: DetailValue) -> None:
        """Add a record to the supervision stream. Contract: operations.md §1."""
        self._cell.emit(event, **detail)

    def reply(self, request: Request[R], value: R) -> None:
        """Answer *request*, which is the message of the running turn."""
        self._cell.reply(request, value)

    def refuse(self, request: Request[Any], error: Exception) -> None:
        """Answer *request* by raising *error* at the asker; this actor goes on."""
        self._cell.refuse(request, error)

    def defer(self, request: Request[R]) -> Reply[R]:
        """Take the duty to answer *request* out of the running turn."""
        slot = self._cell.defer(request)
        return Reply(slot, self._cell.settled_later)


class Actor(ABC, Generic[M_contra]):
    """State plus a mailbox; handles one message at a time.

    `__init__` takes what the actor uses and does no I/O. Any exception that leaves `receive`, a
    hook or an own task ends the incarnation; what follows is its supervisor's decision.
    """

    ctx: Context[M_contra]
    """Set before `on_start`; not there in `__init__`."""

    @abstractmethod
    async def receive(self, message: M_contra) -> None:
        """Handle one message: the turn. Anything longer than a commit is an own task's work."""

    async def on_start(self) -> None:
        """Load state, watch, start own tasks. Failing here is a crash like any other."""

    async def on_drain(self) -> None:
        """Bring work to an end: others' messages no longer arrive, own posts do.

        Called when the actor is asked to stop. It must lead to `ctx.stop()` within the grace.
        """
        self.ctx.stop()

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002 - design's word; optional hook
        """Release what `on_start` took. Runs whatever the end was; shielded, at most 2 s."""

    def reply(self, request: Request[R], value: R) -> None:
        """Answer *request*, which is the message of the running turn."""
        self.ctx.reply(request, value)

    def refuse(self, request: Request[Any], error: Exception) -> None:
        """Answer *request* by raising *error* at the asker. A refusal, not a crash."""
        self.ctx.refuse(request, error)

    def defer(self, request: Request[R]) -> Reply[R]:
        """Promise to answer *request* later, from a later turn or an own task."""
        return self.ctx.defer(request)

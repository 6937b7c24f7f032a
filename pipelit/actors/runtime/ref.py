"""A path one can send to, and the ask."""

import math
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import trio

from pipelit.actors.runtime.envelope import Envelope, Slot, current_turn
from pipelit.actors.runtime.errors import ActorDied, AskCycle, AskTimeout
from pipelit.actors.runtime.messages import Asked, Exit, ExitReason, Message

if TYPE_CHECKING:
    from pipelit.actors.runtime.directory import Directory
    from pipelit.actors.runtime.lifecycle import Cell

M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
R = TypeVar("R")


class ActorRef(Generic[M_contra]):
    """A path one can send to. Resolved at each send, so it never goes stale.

    Equal to every other ref to the same path in the same system.
    """

    __slots__ = ("_directory", "_known", "path")

    def __init__(self, directory: "Directory", path: str, known: "Cell | None" = None) -> None:
        self.path = path
        self._directory = directory
        self._known = known  # answers how it ended once the path is free

    def tell(self, message: M_contra) -> None:
        """Send and forget. Never waits; a message to nobody is a dead letter.

        Raises:
            MailboxFull: the mailbox is full and its policy is `REJECT`.
        """
        cell = self._directory.resolve(self.path)
        if cell is None:
            self._directory.dead_letter(self.path, Envelope(message), "gone")
        else:
            cell.deliver(Envelope(message))

    async def ask(self, request: Asked[R], timeout: float = 5.0) -> R:
        """Send *request* and wait for its reply, at most *timeout* seconds (`math.inf` allowed).

        Leaving early, by deadline or cancellation, never harms the callee: a request that it has
        not begun is skipped, one that it has begun is finished and its reply dropped.

        Raises:
            MailboxFull: the mailbox is full, or the request was dropped from it.
            ActorDied: the callee is gone, or went before it answered.
            ActorRestarting: the request was lost in a crash; the callee comes back.
            AskTimeout: the deadline passed.
            AskCycle, NoReply: a bug, named.
        """
        turn = current_turn.get()
        if turn is not None:
            cycle = turn.find_cycle(self.path)
            if cycle is not None:
                raise AskCycle(cycle)
        await trio.lowlevel.checkpoint_if_cancelled()
        slot = Slot()
        cell = self._directory.resolve(self.path)
        if cell is None:
            raise ActorDied(self.path, self._last_exit())
        cell.deliver(Envelope(cast("Message", request), slot))
        if timeout == math.inf:
            return cast("R", await slot.wait())
        with trio.move_on_after(timeout):
            return cast("R", await slot.wait())
        self._directory.ask_timed_out(self.path, request, timeout)
        raise AskTimeout(self.path, timeout)

    def stop(self, reason: str = "stopped") -> None:
        """Ask the actor to drain and end within its grace. Returns at once; the end is final."""
        cell = self._directory.find(self.path)
        if cell is not None:
            cell.request_stop(reason)

    def cancel(self, reason: str) -> None:
        """Cancel the actor wherever it is. Returns at once; not a crash, never a restart."""
        cell = self._directory.find(self.path)
        if cell is not None:
            cell.cancel(reason)

    async def wait_stopped(self) -> Exit:
        """Wait until nobody runs at this path and return how it ended; restarts are passed over.

        An exit `killed` with `why` "no such actor" stands for an end this ref knows nothing of.
        """
        cell = self._directory.find(self.path)
        if cell is not None:
            return await cell.wait_gone()
        await trio.lowlevel.checkpoint()
        return self.last_exit

    @property
    def last_exit(self) -> Exit:
        """How the actor ended, as far as this ref knows."""
        return self._last_exit() or Exit(ExitReason.KILLED, "no such actor")

    def is_alive(self) -> bool:
        """Say whether an actor runs at this path, or waits for its start or restart."""
        return self._directory.find(self.path) is not None

    def _last_exit(self) -> Exit | None:
        return None if self._known is None else self._known.exit

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorRef):
            return NotImplemented
        return self.path == other.path and self._directory is other._directory

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"

"""A mailbox for a task that exists already: a WebSocket handler, a test's probe."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, cast

import trio

from pipelit.actors.runtime.directory import Directory
from pipelit.actors.runtime.envelope import Envelope, Slot, Turn, current_turn
from pipelit.actors.runtime.errors import ActorDied, ActorError, InboxClosed
from pipelit.actors.runtime.lifecycle import DEFAULT_GRACE
from pipelit.actors.runtime.mail_cell import MailCell
from pipelit.actors.runtime.mailbox import Mailbox
from pipelit.actors.runtime.messages import Exit, Message, Request
from pipelit.actors.runtime.parent import ParentCell
from pipelit.actors.runtime.records import Detail
from pipelit.actors.runtime.ref import ActorRef
from pipelit.actors.runtime.restart import Policy, Restart, RestartLimit, Window

M = TypeVar("M", bound=Message)
R = TypeVar("R")


class AttachedCell(MailCell):
    """The cell of a task that somebody else runs. It is told, watched and cancelled like others."""

    def __init__(
        self,
        directory: Directory,
        parent: ParentCell,
        name: str,
        *,
        kind: str,
        mailbox: Mailbox,
        detail: Detail,
    ) -> None:
        super().__init__(
            directory,
            parent,
            name,
            kind=kind,
            policy=Policy(restart=Restart.TEMPORARY, grace=DEFAULT_GRACE),
            window=Window(RestartLimit(0)),
            mailbox=mailbox,
            detail=detail,
        )
        self.asked: dict[int, tuple[Message, Slot]] = {}

    async def live(self) -> None:
        """Never called: the task lives elsewhere."""
        raise NotImplementedError

    def over(self, end: Exit, *, restarts: bool) -> None:
        """Fail the asks that were taken and not answered."""
        for _, slot in self.asked.values():
            slot.fail(ActorDied(self.path, end))
        self.asked.clear()


class Inbox(Generic[M]):
    """The messages of an attached task. One reader at a time."""

    def __init__(self, cell: AttachedCell) -> None:
        self._cell = cell

    @property
    def ref(self) -> ActorRef[M]:
        """A ref to this inbox, to hand out."""
        return ActorRef(self._cell.directory, self._cell.path, self._cell)

    async def wait(self) -> M:
        """Wait for the next message and return it. Cancelling loses nothing.

        Raises:
            InboxClosed: the task was asked to stop. Let it leave the block: a clean end.
        """
        await trio.lowlevel.checkpoint()
        while True:
            message = self._take()
            if message is not None:
                return message
            if self._cell.is_ending:
                raise InboxClosed(self._cell.path)
            await self._cell.mail.wait()

    async def wait_batch(self, max: int) -> list[M]:  # noqa: A002 - reads as a limit at the call
        """Wait for a message and return it with those behind it, at most *max*. See `wait`."""
        batch = [await self.wait()]
        while len(batch) < max:
            message = self._take()
            if message is None:
                break
            batch.append(message)
        return batch

    def reply(self, request: Request[R], value: R) -> None:
        """Answer a request that was taken from this inbox; a told one has nobody to hear it."""
        _, slot = self._cell.asked.pop(id(request), (request, Slot()))
        slot.send(value)

    def _take(self) -> M | None:
        cell = self._cell
        while (mail := cell.mail.take()) is not None:
            assert isinstance(mail, Envelope)
            cell.handled += 1
            if mail.slot is None:
                return cast("M", mail.message)
            if mail.slot.abandoned:
                cell.directory.dead_letter(cell.path, mail, "abandoned")
                continue
            # Keeps the message alive, so its id stays its own; the abandoned are let go here.
            cell.asked = {k: v for k, v in cell.asked.items() if v[1].open}
            cell.asked[id(mail.message)] = (mail.message, mail.slot)
            return cast("M", mail.message)
        return None


@asynccontextmanager
async def attach(
    directory: Directory,
    parent_path: str,
    name: str,
    *,
    kind: str,
    mailbox: Mailbox,
    detail: Detail,
) -> AsyncIterator[Inbox[Any]]:
    """Give the calling task a place under the supervisor at *parent_path* for this block."""
    parent = directory.find(parent_path)
    if not isinstance(parent, ParentCell) or parent.is_over:
        raise ActorDied(parent_path)
    if parent.is_family:
        raise ActorError(f"{parent_path}: a family makes its own members")
    cell = AttachedCell(directory, parent, name, kind=kind, mailbox=mailbox, detail=detail)
    parent.adopt(cell, runs_elsewhere=True)
    outside = current_turn.get()
    current_turn.set(Turn(cell.path, cell.log_context, holds=False))
    try:
        with cell.lived_elsewhere():
            try:
                yield Inbox(cell)
            except* InboxClosed:
                pass  # the task left because it was asked to
    finally:
        current_turn.set(outside)

"""A cell that others can send to: what happens to mail that is refused, dropped or too late."""

from typing import TypeAlias

from pipelit.actors.runtime.directory import Directory
from pipelit.actors.runtime.envelope import Envelope, ExitNotice
from pipelit.actors.runtime.errors import ActorDied, MailboxFull
from pipelit.actors.runtime.lifecycle import Cell
from pipelit.actors.runtime.mailbox import Full, Mailbox, MailQueue
from pipelit.actors.runtime.messages import Exit
from pipelit.actors.runtime.records import Detail
from pipelit.actors.runtime.restart import Policy, Window

Mail: TypeAlias = Envelope | ExitNotice


class MailCell(Cell):
    """A cell with a mailbox that others can send to."""

    def __init__(
        self,
        directory: Directory,
        parent: Cell,
        name: str,
        *,
        kind: str,
        policy: Policy,
        window: Window,
        mailbox: Mailbox,
        detail: Detail,
    ) -> None:
        super().__init__(
            directory, parent, name, kind=kind, policy=policy, window=window, detail=detail
        )
        self.mail: MailQueue[Mail] = MailQueue(mailbox, self._on_water)
        self._closed_by: Exit | None = None

    def deliver(self, envelope: Envelope) -> None:
        """Take a message from outside, or say why not.

        Raises:
            MailboxFull: the policy is `REJECT` and there is no room.
            ActorDied: *envelope* is an ask and the actor is stopping.
        """
        if self._closed_by is not None:
            if envelope.slot is not None:
                raise ActorDied(self.path, self._closed_by)
            self.directory.dead_letter(self.path, envelope, "stopping")
            return
        try:
            dropped = self.mail.put(envelope)
        except Full:
            raise MailboxFull(self.path, self.mail.capacity) from None
        if isinstance(dropped, Envelope):
            self.directory.dead_letter(self.path, dropped, "overflow")
            if dropped.slot is not None:
                dropped.slot.fail(MailboxFull(self.path, self.mail.capacity))

    def close(self, end: Exit) -> None:
        """Take nothing from others any more; those who wait in the queue hear it at once."""
        self._closed_by = end
        for envelope in self.mail.take_all():
            assert isinstance(envelope, Envelope)
            if envelope.slot is None:
                self.directory.dead_letter(self.path, envelope, "stopping")
            else:
                envelope.slot.fail(ActorDied(self.path, end))
        self.mail.wake()

    def _on_water(self, is_high: bool) -> None:
        self.emit(
            "mailbox_high" if is_high else "mailbox_normal",
            depth=self.mail.depth,
            capacity=self.mail.capacity,
        )

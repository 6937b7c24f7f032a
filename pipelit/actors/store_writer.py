"""The actor that keeps the store's writer running: `/store/writer`.

The queue is the store's; this actor's life is the writer's life. A corrupted database must not be
survived: it escalates, and the process ends.
"""

from pipelit.actors.runtime import Actor, Directive, Message
from pipelit.store import Store, StoreCorrupted


class Emptied(Message, frozen=True):
    """The queue is empty and the writer has ended, as asked."""


class StoreWriter(Actor[Emptied]):
    """Owns `Store.run`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_start(self) -> None:
        """Start committing."""
        self.ctx.start_soon(self._run, name="writer")

    async def receive(self, message: Emptied) -> None:
        """Everything that was queued is committed."""
        self.ctx.stop()

    async def on_drain(self) -> None:
        """Let the queue empty, then stop."""
        self._store.stop()

    async def _run(self) -> None:
        await self._store.run()
        self.ctx.post(Emptied())


def escalate_on_corruption(error: Exception) -> Directive:
    """Decide about a crash of the writer: only a restored backup helps a corrupted database."""
    return Directive.ESCALATE if isinstance(error, StoreCorrupted) else Directive.RESTART

"""The one way an execution's rows change: fenced, numbered, and published in order after commit.

Used by the execution's actor for its steps and by its node tasks for an agent's progress. Whatever
order the commits' waiters wake in, events leave in the order of their numbers.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from pipelit.actors import paths
from pipelit.actors.hub import Announcement, Audience, Publisher
from pipelit.actors.runtime import System
from pipelit.store import Store
from pipelit.store.queries.executions import StoredEvent
from pipelit.store.queries.journal import Loaded, Step, write_step

Announce: TypeAlias = Callable[[Announcement], None]


def open_ledger(system: System, store: Store, loaded: Loaded) -> "Ledger":
    """Return the ledger of an execution, which announces at the system's hub."""
    audience = Audience(
        loaded.workflow_id, loaded.workflow_slug, loaded.workflow_owner_id, loaded.user_id
    )
    announce = Publisher(system.ref(paths.HUB)).announce
    return Ledger(loaded.id, audience, store=store, announce=announce, last_seq=loaded.last_seq)


class Ledger:
    """Owned by one execution; shared with its node tasks."""

    def __init__(
        self,
        execution_id: str,
        audience: Audience,
        *,
        store: Store,
        announce: Announce,
        last_seq: int,
    ) -> None:
        self._execution_id = execution_id
        self._audience = audience
        self._store = store
        self._announce = announce
        self._published = last_seq
        self._early: dict[int, Sequence[StoredEvent]] = {}

    async def write(self, step: Step) -> bool:
        """Commit a step, then publish its events. Waits as long as the storage is full.

        Returns:
            Whether the execution was let go of: it only waits for answers.

        Cancelling loses nothing: the step is committed and published, or was never begun.

        Raises:
            Fenced: the execution has another owner, or has ended.
        """
        written = await self._store.write(
            lambda conn: write_step(conn, step), key=self._execution_id, patient=True
        )
        self._publish(written.events)
        return written.interrupted

    def delta(self, node_id: str, text: str, index: int) -> None:
        """Publish a piece of an answer: live only, never stored."""
        data = {
            "execution_id": self._execution_id,
            "node_id": node_id,
            "text": text,
            "index": index,
        }
        self._announce(Announcement(self._execution_id, self._audience, "chat_delta", data))

    def _publish(self, events: Sequence[StoredEvent]) -> None:
        if not events:
            return
        self._early[events[0].seq] = events
        while ready := self._early.pop(self._published + 1, None):
            self._published = ready[-1].seq
            for event in ready:
                self._announce(
                    Announcement(
                        self._execution_id,
                        self._audience,
                        event.type,
                        event.data,
                        seq=event.seq,
                        timestamp=event.timestamp,
                    )
                )

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
        self._writing = 0  # steps on their way

    async def write(self, step: Step) -> bool:
        """Commit a step, then publish its events. Waits as long as the storage is full.

        Returns:
            Whether the execution was let go of: it only waits for answers.

        Cancelling loses nothing: the step is committed and published, or was never begun.

        Raises:
            Fenced: the execution has another owner, or has ended.
            CommitUncertain: nobody knows whether it is committed; readers with `since` see it.
        """
        self._writing += 1
        try:
            written = await self._store.write(
                lambda conn: write_step(conn, step), key=self._execution_id, patient=True
            )
            if written.events:
                self._early[written.events[0].seq] = written.events
            return written.interrupted
        finally:
            self._writing -= 1
            self._publish()

    def delta(self, node_id: str, text: str, index: int) -> None:
        """Publish a piece of an answer: live only, never stored."""
        data = {
            "execution_id": self._execution_id,
            "node_id": node_id,
            "text": text,
            "index": index,
        }
        self._announce(Announcement(self._execution_id, self._audience, "chat_delta", data))

    def _publish(self) -> None:
        """Announce what is next. A hole that no step on its way can fill is left out.

        Such are the numbers of an uncertain commit: whoever misses them reads them from the store.
        """
        while self._early:
            if self._published + 1 not in self._early:
                if self._writing:
                    return
                self._published = min(self._early) - 1
            ready = self._early.pop(self._published + 1)
            self._published = ready[-1].seq
            for event in ready:
                self._tell(event)

    def _tell(self, event: StoredEvent) -> None:
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

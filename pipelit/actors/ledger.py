"""The one way an execution's rows change: fenced, numbered, and published in order after commit.

Used by the execution's actor for its steps and by its node tasks for an agent's progress. Whatever
order the commits' waiters wake in, events leave in the order of their numbers. A child's steps also
add events to its root, which leave through the same outlet as the root's own.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from pipelit.actors import paths
from pipelit.actors.hub import Announcement, Audience, Publisher
from pipelit.actors.runtime import System
from pipelit.store import Store
from pipelit.store.queries.children import Kin, NewChild, write_family_step
from pipelit.store.queries.executions import StoredEvent
from pipelit.store.queries.journal import Loaded, Step

Announce: TypeAlias = Callable[[Announcement], None]


class Outlet:
    """Lets the events of one execution out, in the order of their numbers."""

    def __init__(
        self, execution_id: str, audience: Audience, announce: Announce, *, last_seq: int
    ) -> None:
        self._execution_id = execution_id
        self._audience = audience
        self._announce = announce
        self._published = last_seq
        self._early: dict[int, Sequence[StoredEvent]] = {}
        self._writing = 0  # steps on their way

    def expect(self) -> None:
        """A step that may have events is on its way."""
        self._writing += 1

    def arrive(self, events: Sequence[StoredEvent]) -> None:
        """The step is over, and left these events."""
        self._writing -= 1
        if events:
            self._early[events[0].seq] = events
        self._publish()

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Announce something that is not stored."""
        self._announce(Announcement(self._execution_id, self._audience, kind, data))

    def _publish(self) -> None:
        """Announce what is next. A hole that no step on its way can fill is left out.

        Such are the numbers of an uncertain commit, and of children on other servers: whoever
        misses them reads them from the store.
        """
        while self._early:
            if self._published + 1 not in self._early:
                if self._writing:
                    return
                self._published = min(self._early) - 1
            ready = self._early.pop(self._published + 1)
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


class Outlets:
    """The outlets in use: an execution has one, whoever writes events for it."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[str, Outlet] = WeakValueDictionary()

    def find(
        self, execution_id: str, audience: Audience, announce: Announce, *, last_seq: int
    ) -> Outlet:
        """Return the outlet of an execution, the same for as long as anybody holds it."""
        outlet = self._open.get(execution_id)
        if outlet is None:
            outlet = Outlet(execution_id, audience, announce, last_seq=last_seq)
            self._open[execution_id] = outlet
        return outlet


def open_ledger(
    system: System, store: Store, outlets: Outlets, loaded: Loaded, kin: Kin | None
) -> "Ledger":
    """Return the ledger of an execution, which announces at the system's hub."""
    announce = Publisher(system.ref(paths.HUB)).announce
    audience = Audience(
        loaded.workflow_id, loaded.workflow_slug, loaded.workflow_owner_id, loaded.user_id
    )
    own = outlets.find(loaded.id, audience, announce, last_seq=loaded.last_seq)
    if kin is None:
        return Ledger(loaded.id, own, store=store)
    audience = Audience(
        kin.root_workflow_id, kin.root_workflow_slug, kin.root_owner_id, kin.root_user_id
    )
    root = outlets.find(kin.root_execution_id, audience, announce, last_seq=kin.root_last_seq)
    return Ledger(loaded.id, own, store=store, kin=kin, root=root)


class Ledger:
    """Owned by one execution; shared with its node tasks."""

    def __init__(
        self,
        execution_id: str,
        own: Outlet,
        *,
        store: Store,
        kin: Kin | None = None,
        root: Outlet | None = None,
    ) -> None:
        """`kin`, `root`: of a child; where its root's events leave."""
        self._execution_id = execution_id
        self._own = own
        self._store = store
        self._kin = kin
        self._outlets = (own,) if root is None else (own, root)

    async def write(self, step: Step, *, children: Collection[NewChild] = ()) -> bool:
        """Commit a step with the children it starts, then publish its events.

        Waits as long as the storage is full.

        Returns:
            Whether the execution was let go of: it only waits for answers.

        Cancelling loses nothing: the step is committed and published, or was never begun.

        Raises:
            Fenced: the execution has another owner, or has ended.
            CommitUncertain: nobody knows whether it is committed; readers with `since` see it.
        """
        for outlet in self._outlets:
            outlet.expect()
        events: tuple[Sequence[StoredEvent], ...] = ((), ())
        try:
            done = await self._store.write(
                lambda conn: write_family_step(conn, step, kin=self._kin, children=children),
                key=self._execution_id,
                patient=True,
            )
            events = (done.written.events, done.forwarded)
            return done.written.interrupted
        finally:
            for outlet, told in zip(self._outlets, events, strict=False):
                outlet.arrive(told)

    def delta(self, node_id: str, text: str, index: int) -> None:
        """Publish a piece of an answer: live only, never stored."""
        data = {
            "execution_id": self._execution_id,
            "node_id": node_id,
            "text": text,
            "index": index,
        }
        self._own.tell("chat_delta", data)

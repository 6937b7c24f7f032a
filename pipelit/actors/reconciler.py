"""Nothing is stuck: executions without a live owner are taken up, at start and every 30 s.

A loop, not a step of the start. An error with one execution is recorded, disturbs no other and is
tried again in the next round. Contract: engine.md §10.3.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import structlog

from pipelit.actors import paths
from pipelit.actors.chats import ChatMessage, Wake
from pipelit.actors.manager_messages import GiveUp, ManagerMessage, Start, StartChildren, TakeUp
from pipelit.actors.runtime import Actor, ActorError, ActorRef, Family, Message
from pipelit.clock import Clock
from pipelit.engine.changes import Ending
from pipelit.store import Store, StoreError
from pipelit.store.queries import children, journal, ownership

INTERVAL = 30.0
PAGE = 500

ZOMBIE = Ending(
    status="failed",
    error_message=(
        "Execution recovered as failed: worker presumed crashed (exceeded zombie threshold)"
    ),
    error_code="ZombieExecution",
)

log = structlog.get_logger(__name__)


class Round(Message, frozen=True):
    """Time to look."""


ReconcilerMessage: TypeAlias = Round


class Reconciler(Actor[ReconcilerMessage]):
    """One per server. `zombie_threshold`: seconds, 0 = off; asked for at each look."""

    def __init__(
        self,
        *,
        store: Store,
        owner: journal.Owner,
        clock: Clock,
        zombie_threshold: Callable[[], int],
    ) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._zombie_threshold = zombie_threshold
        self._missing: set[str] = set()  # ours, without an actor in the round before

    async def on_start(self) -> None:
        """Take up everything before the server is ready."""
        self._manager: ActorRef[ManagerMessage] = self.ctx.system.ref(paths.MANAGER)
        self._chats: Family[ChatMessage] = self.ctx.system.family(paths.CHATS)
        await self._round()
        self.ctx.after(INTERVAL, Round())

    async def receive(self, message: ReconcilerMessage) -> None:
        """Look again."""
        try:
            await self._round()
        except StoreError as error:
            # The database does not answer: what it holds waits for the next round.
            log.warning("reconciliation postponed", error=str(error))
        self.ctx.after(INTERVAL, Round())

    async def _round(self) -> None:
        after = 0
        while page := await self._orphans(after):
            after = page[-1].created_seq
            parents = await self._parents([o.id for o in page if o.status == "pending"])
            for orphan in page:
                self._take_up(orphan, parents.get(orphan.id))
        await self._find_lost()

    async def _orphans(self, after: int) -> list[ownership.Orphan]:
        return await self._store.read(
            lambda conn: ownership.find_orphans(conn, self._owner, after=after, limit=PAGE)
        )

    async def _parents(self, execution_ids: list[str]) -> Mapping[str, str]:
        return await self._store.read(lambda conn: children.parents_of(conn, execution_ids))

    def _take_up(self, orphan: ownership.Orphan, parent_id: str | None) -> None:
        if orphan.status == "pending":
            if parent_id is not None:
                self._tell(self._manager, StartChildren(parent_id, (orphan.id,)), orphan.id)
            elif orphan.serial:
                self._tell(self._chats.ref(orphan.thread_id), Wake(), orphan.id)
            else:
                self._tell(self._manager, Start((orphan.id,)), orphan.id)
        elif self._is_zombie(orphan.last_activity_at):
            self._tell(self._manager, GiveUp(orphan.id, ZOMBIE), orphan.id)
        else:
            self._tell(self._manager, TakeUp(orphan.id, orphan.crashed), orphan.id)

    def _tell(self, ref: ActorRef[Any], message: Message, execution_id: str) -> None:
        try:
            ref.tell(message)
        except ActorError:
            # A full mailbox: the next round finds the execution again.
            log.warning("take-up postponed", execution_id=execution_id)

    def _is_zombie(self, last_activity: datetime) -> bool:
        idle = (self._clock.now() - last_activity).total_seconds()
        return 0 < self._zombie_threshold() < idle

    async def _find_lost(self) -> None:
        """Take up own executions that had no actor in two rounds: it was lost between two steps."""
        ours = await self._store.read(lambda conn: ownership.owned(conn, self._owner))
        system = self.ctx.system
        missing = {e for e in ours if not system.ref(paths.execution(e)).is_alive()}
        for execution_id in missing & self._missing:
            self._tell(self._manager, TakeUp(execution_id, crashed=True), execution_id)
        self._missing = missing

"""Counts executions that are stuck, which must be none. Contract: operations.md §2.

Whether one waits for nothing is seen in the database at one moment; whether it does so for over a
minute, by looking again. One that moved between two looks starts anew.
"""

from collections.abc import Callable, Collection
from typing import TypeAlias

import structlog
import trio

from pipelit.actors import paths
from pipelit.actors.runtime import Actor, Message, System
from pipelit.store import Store, StoreError
from pipelit.store.queries import ownership
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.stuck import Idle, find_idle

PATIENCE = 60.0
INTERVAL = 20.0

log = structlog.get_logger(__name__)


class StuckTally:
    """Since when which execution has been idle. Survives restarts of the actor."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._now = now
        self._since: dict[str, float] = {}

    def note(self, idle: Collection[Idle]) -> list[Idle]:
        """Take note of who is idle now; return who has been for over a minute."""
        now = self._now()
        self._since = {one.execution_id: self._since.get(one.execution_id, now) for one in idle}
        return [one for one in idle if now - self._since[one.execution_id] > PATIENCE]


class StuckFinder:
    """Looks for stuck executions, on behalf of the actor and of whoever asks."""

    def __init__(self, store: Store, owner: Owner, *, max_running: int) -> None:
        self._store = store
        self._owner = owner
        self._max_running = max_running
        self._tally = StuckTally()
        self.count = 0
        """What the last look found."""

    async def look(self, system: System) -> int:
        """Look now, and return how many are stuck.

        Raises:
            StoreError: the database does not answer.
        """
        has_slot = _count_roots(system) < self._max_running
        idle, owned = await self._store.read(
            lambda conn: (
                find_idle(conn, self._owner, has_slot=has_slot),
                ownership.owned(conn, self._owner),
            )
        )
        lost = (
            Idle(execution_id, "no_owner")
            for execution_id in owned
            if not system.ref(paths.execution(execution_id)).is_alive()
        )
        stuck = self._tally.note([*idle, *lost])
        self.count = len(stuck)
        for one in stuck[:10]:
            log.error("execution is stuck", execution_id=one.execution_id, why=one.why)
        return self.count


def _count_roots(system: System) -> int:
    """Return how many executions hold a slot: a child never does."""
    room = system.snapshot(paths.EXECUTIONS)
    return sum("parent_execution_id" not in one.detail for one in (room.children if room else ()))


class Look(Message, frozen=True):
    """Time to look."""


StuckMessage: TypeAlias = Look


class StuckWatch(Actor[StuckMessage]):
    """One per server: looks every 20 s, so that nobody has to ask twice."""

    def __init__(self, finder: StuckFinder) -> None:
        self._finder = finder

    async def on_start(self) -> None:
        """Look soon."""
        self.ctx.after(INTERVAL, Look())

    async def receive(self, message: StuckMessage) -> None:
        """Look, and again later."""
        self.ctx.after(INTERVAL, Look())
        try:
            await self._finder.look(self.ctx.system)
        except StoreError as error:
            log.warning("no look at stuck executions", error=str(error))

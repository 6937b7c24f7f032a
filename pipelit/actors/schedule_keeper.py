"""No job without its actor: wakes those that need one, at start and every 30 s.

What happens at a job's time is its own actor's business. This one finds jobs that no live server
runs, and those whose actor missed something: the machine slept, its clock was set, an actor gave
up. Contract: engine.md §10.7 "Schedules", §26.6.
"""

from typing import TypeAlias

import structlog

from pipelit.actors import paths, schedule_units
from pipelit.actors.runtime import Actor, ActorError, Family, Message
from pipelit.actors.schedules import LATE, ScheduleMessage, Wake
from pipelit.clock import Clock
from pipelit.store import Store, StoreError
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.schedules import Stray

INTERVAL = 30.0

log = structlog.get_logger(__name__)


class Round(Message, frozen=True):
    """Time to look."""


KeeperMessage: TypeAlias = Round


class ScheduleKeeper(Actor[KeeperMessage]):
    """One per server."""

    def __init__(self, *, store: Store, owner: Owner, clock: Clock) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock

    async def on_start(self) -> None:
        """Take up every job before the server is ready."""
        self._schedules: Family[ScheduleMessage] = self.ctx.system.family(paths.SCHEDULES)
        await self._round()

    async def receive(self, message: KeeperMessage) -> None:
        """Look again."""
        await self._round()

    async def _round(self) -> None:
        for stray in await self._find():
            try:
                adopted = stray if stray.lost else None
                self._schedules.ref(stray.id).tell(Wake(adopted=adopted))
            except ActorError:  # a full mailbox: the next round finds it again
                log.warning("wake-up postponed", schedule_id=stray.id)
        self.ctx.after(INTERVAL, Round())

    async def _find(self) -> list[Stray]:
        overdue = self._clock.now() - LATE
        try:
            return await self._store.write(
                lambda conn: schedule_units.take_over(conn, self._owner, overdue=overdue),
                patient=True,
            )
        except StoreError as error:  # too many writes wait: the next round finds the same
            log.warning("schedules not looked at", error=str(error))
            return []

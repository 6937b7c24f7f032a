"""Deletes what has been kept for long enough, in steps that nobody waits for.

Each step is one small transaction, so that the disk is free for others in between; when nothing is
left to delete, free pages go back to the file system. Contract: operations.md §6.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

import msgspec
import structlog

from pipelit.actors.runtime import Actor, Message
from pipelit.clock import Clock
from pipelit.store import Store, StoreError
from pipelit.store.queries import retention

INTERVAL = 3600.0
PAUSE = 0.1
"""Seconds between two steps."""
STEP_ROWS = 100
STEP_SECONDS = 0.05
STEP_PAGES = 256

MOST_DAYS = 100_000
"""More are more than the calendar can go back."""

log = structlog.get_logger(__name__)


class Rules(msgspec.Struct, frozen=True):
    """How long and how many ended executions are kept; 0: without limit."""

    days: int = 0
    most: int = 0


class Sweep(Message, frozen=True):
    """Time to see what can go."""


RetentionMessage: TypeAlias = Sweep


class Retention(Actor[RetentionMessage]):
    """One per server."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        rules: Rules,
        *,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._timer = timer
        self._removed = 0

    async def on_start(self) -> None:
        """Begin at once."""
        self.ctx.post(Sweep())

    async def receive(self, message: Sweep) -> None:
        """Take one step; the next follows soon, or in an hour if there was nothing to do."""
        try:
            more = await self._step()
        except StoreError as error:
            log.warning("retention postponed", error=str(error))
            more = False
        if not more and self._removed:
            log.info("executions deleted by retention", count=self._removed)
            self._removed = 0
        self.ctx.after(PAUSE if more else INTERVAL, Sweep())

    async def _step(self) -> bool:
        """Do the first of what is to be done; tell whether there was anything."""
        return (
            await self._delete_executions()
            or await self._delete_keys()
            or await self._delete_ticks()
            or await self._give_back_pages()
        )

    async def _delete_executions(self) -> bool:
        rules = self._rules
        age = timedelta(days=min(rules.days, MOST_DAYS))
        before = self._clock.now() - age if rules.days else None
        doomed = await self._store.read(
            lambda conn: retention.find_executions(
                conn, ended_before=before, keep=rules.most, limit=STEP_ROWS
            )
        )
        if doomed:
            self._removed += await self._store.write(
                lambda conn: retention.delete_executions(
                    conn, doomed, timer=self._timer, seconds=STEP_SECONDS
                )
            )
        return bool(doomed)

    async def _delete_keys(self) -> bool:
        now = self._clock.now()
        keys = await self._store.read(
            lambda conn: retention.find_keys(conn, now=now, limit=STEP_ROWS)
        )
        if keys:
            await self._store.write(lambda conn: retention.delete_keys(conn, keys, now=now))
        return bool(keys)

    async def _delete_ticks(self) -> bool:
        now = self._clock.now()
        ticks = await self._store.read(
            lambda conn: retention.find_ticks(conn, now=now, limit=STEP_ROWS)
        )
        if ticks:
            await self._store.write(lambda conn: retention.delete_ticks(conn, ticks))
        return bool(ticks)

    async def _give_back_pages(self) -> bool:
        free = await self._store.read(retention.count_free_pages)
        if free:
            await self._store.write(lambda conn: retention.give_back_pages(conn, STEP_PAGES))
        return free > STEP_PAGES

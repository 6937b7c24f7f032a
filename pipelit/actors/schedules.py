"""One scheduled job: sleeps until its next time, starts its execution, records what came of it.

A member of the family `schedules`, keyed by job: started by whoever changes the job or finds it
without an actor, and passivated when it neither sleeps nor waits for a run. Its state is in the
database; what it holds is only what it has last seen there. Contract: schedules.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeAlias, TypeVar, assert_never

import structlog
import trio

from pipelit.actors import paths, schedule_units
from pipelit.actors.manager_messages import Join, ManagerMessage, Run
from pipelit.actors.runtime import (
    Actor,
    ActorDied,
    ActorRef,
    ActorRestarting,
    MailboxFull,
    Message,
    Request,
)
from pipelit.clock import Clock, Ids
from pipelit.engine import schedule as rules
from pipelit.store import Store, Unit
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.schedules import ScheduleRow, Stray

T = TypeVar("T")

LATE = timedelta(seconds=5)
"""A wake-up later than this has missed times: the machine slept, or its clock was set."""

LOOK_EVERY = 30.0
"""Seconds between tries of a missed time that has to wait for a run elsewhere."""

log = structlog.get_logger(__name__)


class Begin(Request[None], frozen=True):
    """The job was made. Replies when its actor is at work."""


class Wake(Message, frozen=True):
    """The job may have changed, or something of it was missed.

    `adopted`: it had no live owner, and how it stood then.
    """

    adopted: Stray | None = None


class Due(Message, frozen=True):
    """The next time may have come."""


class RunOver(Message, frozen=True):
    """An execution of this job does not run here any more; as a rule it has ended."""

    execution_id: str


ScheduleMessage: TypeAlias = Begin | Wake | Due | RunOver


@dataclass(frozen=True, kw_only=True)
class ScheduleParts:
    """What every scheduled job is built from."""

    store: Store
    owner: Owner
    clock: Clock
    ids: Ids
    default_limit: Callable[[], int]
    """Seconds an execution may take if its workflow says nothing."""
    observe: Callable[[str, float], object] = lambda _outcome, _lag: None
    """Told of each due time that had its effect, and how many seconds late; for metrics."""


class Schedule(Actor[ScheduleMessage]):
    """Owned by the family; asks the manager.

    Invariants: it sleeps only if the job is active, its own server's, and not due; `_makes_up_to`
    is set only while the job's next time is one of the missed ones.
    """

    def __init__(self, job_id: str, parts: ScheduleParts) -> None:
        self._id = job_id
        self._parts = parts
        self._job: ScheduleRow | None = None
        self._runs: set[str] = set()  # executions whose end is awaited
        self._sleep: trio.CancelScope | None = None
        self._makes_up_to: datetime | None = None

    async def on_start(self) -> None:
        """Load the job; whatever its times are that are past by now, they were missed."""
        self._manager: ActorRef[ManagerMessage] = self.ctx.system.ref(paths.MANAGER)
        await self._look(tolerance=timedelta(0))

    async def receive(self, message: ScheduleMessage) -> None:
        """Handle one message; see each message's docstring."""
        match message:
            case Begin():  # `on_start` has done it
                self.reply(message, None)
            case Wake(adopted=adopted):
                await self._look()
                if adopted is not None:
                    self.ctx.emit(
                        "recovered",
                        from_status=adopted.status,
                        recovery_count=None,  # nothing of a job can crash its server
                        previous_owner=adopted.owner,
                    )
            case Due():
                await self._proceed()
            case RunOver(execution_id=execution_id):
                self._runs.discard(execution_id)
                await self._settle(execution_id)
                await self._proceed()
            case _:
                assert_never(message)

    async def _look(self, *, tolerance: timedelta = LATE) -> None:
        """Learn the job and its open runs from the store, and go on from there."""
        job, runs = await self._parts.store.read(lambda conn: schedule_units.look(conn, self._id))
        self._adopt(job)
        await self._notice_missed(tolerance)
        for run in runs:
            if run.ended:
                await self._settle(run.execution_id)
            else:
                self._follow(run.execution_id, Join(run.execution_id))
        await self._proceed()

    def _adopt(self, job: ScheduleRow | None) -> None:
        self._job = job
        to = self._makes_up_to
        if to is not None and (job is None or job.next_run_at is None or job.next_run_at > to):
            self._makes_up_to = None

    async def _proceed(self) -> None:
        """Tick as long as the job is due, then sleep until it is again."""
        self._stop_sleeping()
        while (job := self._job) is not None and self._is_ours(job):
            now = self._parts.clock.now()
            if now < job.due_at:
                self._sleep_for((job.due_at - now).total_seconds())
                return
            if await self._notice_missed(LATE):
                continue
            if not await self._tick(job, now):
                return

    def _is_ours(self, job: ScheduleRow) -> bool:
        return job.status == "active" and job.belongs_to(self._parts.owner)

    async def _notice_missed(self, tolerance: timedelta) -> bool:
        """Decide about missed times, unless that is done; tell whether there were any."""
        job, now = self._job, self._parts.clock.now()
        if job is None or not self._is_ours(job) or self._makes_up_to is not None:
            return False
        if now - job.due_at <= tolerance:
            return False
        missed = rules.find_missed(job, now)
        if missed.dropped:
            log.warning(
                "missed times dropped", schedule_id=self._id, older_than=str(missed.next_run_at)
            )
        if missed.next_run_at != job.due_at:
            self._job = await self._write(
                partial(schedule_units.reschedule, old=job, next_run_at=missed.next_run_at)
            )
        self._makes_up_to = missed.until
        self._adopt(self._job)
        return True

    async def _tick(self, job: ScheduleRow, now: datetime) -> bool:
        """Have the due time its effect; False if it has to wait for a run to end."""
        tick = schedule_units.Tick(
            job_id=job.id,
            nominal_time=job.due_at,
            until=self._makes_up_to,
            owner=self._parts.owner,
            now=now,
            execution_id=self._parts.ids.uuid(),
            thread_id=self._parts.ids.hex(32),
            default_limit=self._parts.default_limit(),
        )
        ticked = await self._write(partial(schedule_units.tick, tick=tick))
        self._adopt(ticked.job)
        if ticked.outcome is not None:
            self._parts.observe(ticked.outcome, (now - tick.nominal_time).total_seconds())
        if ticked.started:
            self._follow(tick.execution_id, Run(tick.execution_id))
        if ticked.waits and not self._runs:  # somebody else's run: nobody will tell us
            self._sleep_for(LOOK_EVERY)
        return not ticked.waits

    async def _settle(self, execution_id: str) -> None:
        now, makes_up = self._parts.clock.now(), self._makes_up_to is not None
        self._adopt(
            await self._write(
                lambda conn: schedule_units.settle(
                    conn, self._id, execution_id, now=now, makes_up=makes_up
                )
            )
        )

    async def _write(self, unit: Unit[T]) -> T:
        return await self._parts.store.write(unit, key=f"schedule:{self._id}", patient=True)

    def _sleep_for(self, seconds: float) -> None:
        self._sleep = self.ctx.start_soon(self._sleep_until_due, seconds, name="sleep")

    def _stop_sleeping(self) -> None:
        if self._sleep is not None:
            self._sleep.cancel()
            self._sleep = None

    def _follow(self, execution_id: str, request: Run | Join) -> None:
        if execution_id not in self._runs:
            self._runs.add(execution_id)
            self.ctx.start_soon(self._await_end, execution_id, request, name=execution_id)

    # Own tasks: they wait, and post what follows. While one runs the actor is not passivated.

    async def _sleep_until_due(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.ctx.post(Due())

    async def _await_end(self, execution_id: str, request: Run | Join) -> None:
        """Wait until the manager has nothing more to do with an execution.

        If it has not ended then (it waits for a person, or runs elsewhere), the keeper will tell.
        """
        while True:
            try:
                await self._manager.ask(request, timeout=math.inf)
            except ActorRestarting:
                request = Join(execution_id)
                continue
            except (ActorDied, MailboxFull):
                pass
            self.ctx.post(RunOver(execution_id))
            return

"""Scheduled jobs on a server without its web, on a mock clock.

`async with open_jobs(url, clock, components) as jobs`: workflow 1 is Ada's `t > a`. Its nodes do
what *components* says; a job runs it from `t`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import URL, Connection, select, update
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.actors.runtime import ChildSpec, FamilySpec
from pipelit.actors.schedule_keeper import ScheduleKeeper
from pipelit.actors.schedules import Schedule, ScheduleParts
from pipelit.clock import Clock, Ids
from pipelit.nodes.base import Component
from pipelit.services.principal import Principal
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedule_views import ScheduledJob
from pipelit.services.schedules import SchedulesService
from pipelit.store import Store, schema
from pipelit.store.queries import schedules as queries
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.schedules import ScheduleRow
from tests.kit.flows import ADA, START
from tests.kit.tree import Tree, add_people, open_tree

OWNER = Principal(user_id=ADA, username="ada", role="normal", key_id=1)


class Jobs:
    """A running server, and what a test asks of its jobs."""

    def __init__(
        self, tree: Tree, service: SchedulesService, observed: list[tuple[str, float]]
    ) -> None:
        self.observed = observed
        """(outcome, seconds late) of each due time, as the metrics hear of it."""
        self.tree = tree
        self.service = service

    async def add(self, **settings: Any) -> str:
        """Create a job of workflow 1, every minute from `t` unless *settings* say otherwise."""
        pattern = {} if "cron" in settings else {"interval_seconds": 60}
        place = {"name": "job", "workflow_id": 1, "trigger_node_id": "t"}
        return (await self.service.create(OWNER, {**place, **pattern, **settings})).id

    async def change(self, job_id: str, **settings: Any) -> ScheduledJob:
        return await self.service.change(OWNER, job_id, settings)

    async def row(self, job_id: str) -> ScheduleRow:
        """Return the job as stored."""
        row = await self.tree.store.read(lambda conn: queries.find(conn, job_id))
        assert row is not None
        return row

    async def fires(self, job_id: str) -> list[tuple[float, str | None]]:
        """Return the ticks: nominal time in seconds since the start, outcome."""
        fires = schema.schedule_fires
        wanted = (
            select(fires.c.nominal_time, fires.c.outcome)
            .where(fires.c.schedule_id == job_id)
            .order_by(fires.c.nominal_time)
        )
        rows = await self.tree.store.read(lambda conn: conn.execute(wanted).all())
        return [((at - START).total_seconds(), outcome) for at, outcome in rows]

    async def runs(self, job_id: str) -> list[Any]:
        """Return the executions of a job, oldest first."""
        executions = schema.executions
        wanted = select(executions).where(executions.c.schedule_id == job_id)
        ordered = wanted.order_by(executions.c.created_seq)
        return list(await self.tree.store.read(lambda conn: conn.execute(ordered).all()))

    async def put(self, table: Any, **values: Any) -> None:
        """Change all rows of a table behind everybody's back."""

        def change(conn: Connection) -> int:
            return conn.execute(update(table).values(**values)).rowcount

        await self.tree.store.write(change)

    def alive(self, job_id: str) -> bool:
        """Whether the job has an actor."""
        return self.tree.system.ref(f"{paths.SCHEDULES}/{job_id}").is_alive()


def seconds(at: datetime | None) -> float | None:
    """Return an instant as seconds since the start."""
    return None if at is None else (at - START) / timedelta(seconds=1)


@asynccontextmanager
async def open_jobs(
    url: URL,
    clock: MockClock,
    components: dict[str, Component],
    *,
    epoch: int = 1,
    **more: Any,
) -> AsyncIterator[Jobs]:
    """Run a server with schedules; the first one of a database has people and a workflow."""
    owner = Owner("server", epoch)
    observed: list[tuple[str, float]] = []

    def children(store: Store, owner: Owner, wall: Clock) -> Sequence[Any]:
        parts = ScheduleParts(
            store=store,
            owner=owner,
            clock=wall,
            ids=Ids.seeded(200 + epoch),
            default_limit=lambda: 900,
            observe=lambda outcome, lag: observed.append((outcome, lag)),
        )
        return (
            FamilySpec(
                id="schedules",
                kind="schedule",
                start=lambda job_id: Schedule(job_id, parts),
                idle_after=60.0,
            ),
            ChildSpec(
                id="schedule_keeper",
                kind="schedule_keeper",
                start=lambda: ScheduleKeeper(store=store, owner=owner, clock=wall),
            ),
        )

    async with open_tree(url, clock, components, epoch=epoch, more=children, **more) as tree:
        if epoch == 1:
            await add_people(tree.store)
            await tree.workflow("t > a")
        actors = ScheduleActors(tree.system.family(paths.SCHEDULES).ref)
        wall = more.get("wall") or tree.clock
        yield Jobs(
            tree,
            SchedulesService(tree.store, wall, Ids.seeded(300 + epoch), owner=owner, actors=actors),
            observed,
        )

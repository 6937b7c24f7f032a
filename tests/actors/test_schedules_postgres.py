"""Scheduled jobs on a database that several servers share."""

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.nodes.base import Component
from pipelit.store import schema
from pipelit.store.database import Purpose, open_engine
from pipelit.store.migrate import Migrations
from pipelit.store.queries.servers import register_server
from tests.kit.jobs import Jobs, open_jobs
from tests.kit.postgres import postgres_database, postgres_url

__all__ = ["postgres_database", "postgres_url"]

pytestmark = pytest.mark.slow

Components = dict[str, Component]


@pytest.fixture
def url(postgres_url: URL) -> URL:
    """A migrated database."""
    engine = open_engine(postgres_url, Purpose.MIGRATE)
    Migrations().upgrade(engine)
    engine.dispose()
    return postgres_url


async def wait(jobs: Jobs, until: float) -> None:
    """Wait until so many seconds after the start, and for what happens then to be over."""
    await trio.sleep(until - trio.current_time())
    await jobs.tree.settle()


async def test_a_job_lives_on_after_its_server(
    url: URL, clock: MockClock, components: Components
) -> None:
    """Its ticks, its outcomes, its missed times."""
    async with open_jobs(url, clock, components) as jobs:
        job_id = await jobs.add(catch_up="all")
        await wait(jobs, 65)

    async with open_jobs(url, clock, components, epoch=2) as jobs:
        await wait(jobs, 185)
        fires = await jobs.fires(job_id)

    assert fires == [(60, "completed"), (120, "completed"), (180, "completed")]


async def test_a_live_server_keeps_its_jobs(
    url: URL, clock: MockClock, components: Components
) -> None:
    """The keeper takes only what belongs to a server whose lease ran out."""
    async with open_jobs(url, clock, components) as jobs:
        other = await jobs.tree.store.write(lambda conn: register_server(conn, "other"))
        job_id = await jobs.add(interval_seconds=40)
        await jobs.put(schema.schedules, owner="other", epoch=other)
        await wait(jobs, 65)
        theirs = await jobs.fires(job_id)

        await jobs.put(schema.servers, released=True)
        await wait(jobs, 95)
        ours = [at for at, _ in await jobs.fires(job_id)]

    assert theirs == []
    assert ours == [40]

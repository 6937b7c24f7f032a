"""What a job makes of times it missed, and of runs that ended while nobody looked."""

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors.schedule_keeper import INTERVAL
from pipelit.clock import Clock, TrioClock
from pipelit.engine.outcome import Failure
from pipelit.nodes.base import Component, NodeCall
from pipelit.store import schema
from tests.kit.flows import START, Gate, leave_behind
from tests.kit.jobs import Jobs, open_jobs, seconds

Components = dict[str, Component]


async def fail(call: NodeCall) -> Failure:
    await trio.lowlevel.checkpoint()
    return Failure(code="ConfigError", message="boom", retryable=False)


async def wait(jobs: Jobs, until: float) -> None:
    """Wait until so many seconds after the start, and for what happens then to be over."""
    await trio.sleep(max(0.0, until - trio.current_time()))
    await jobs.tree.settle()


async def outage(
    store_url: URL, clock: MockClock, components: Components, until: float, **settings: Any
) -> str:
    """Make a job of minutes, stop the server after its second run, wait for so many seconds."""
    async with open_jobs(store_url, clock, components) as jobs:
        job_id = await jobs.add(**settings)
        await wait(jobs, 130)
    await trio.sleep(until - trio.current_time())
    return job_id


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        # Down from 130 to 400: 180, 240, 300 and 360 are missed.
        ("one", [60, 120, 180, 460]),
        ("skip", [60, 120, 420, 480]),
        ("all", [60, 120, 180, 240, 300, 360, 460]),
    ],
)
async def test_an_outage_is_made_up_for_as_the_job_says(
    store_url: URL,
    clock: MockClock,
    components: Components,
    catch_up: str,
    expected: list[float],
) -> None:
    """Exactly these nominal times, once each; then the next time after the last tick."""
    job_id = await outage(store_url, clock, components, 400, catch_up=catch_up)

    async with open_jobs(store_url, clock, components, epoch=2) as jobs:
        await wait(jobs, 485)
        fires = [at for at, _ in await jobs.fires(job_id)]
        runs = await jobs.runs(job_id)

    assert expected == [pytest.approx(at, abs=0.5) for at in fires]
    assert ["completed"] * len(fires) == [run.status for run in runs]


@pytest.mark.parametrize("catch_up", ["one", "skip", "all"])
async def test_without_missed_times_the_next_one_stays(
    store_url: URL, clock: MockClock, components: Components, catch_up: str
) -> None:
    """A short outage between two ticks changes nothing."""
    job_id = await outage(store_url, clock, components, 170, catch_up=catch_up)

    async with open_jobs(store_url, clock, components, epoch=2) as jobs:
        await wait(jobs, 185)
        fires = [at for at, _ in await jobs.fires(job_id)]

    assert fires == [60, 120, 180]


async def test_missed_times_wait_for_each_other(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """Under `all` each runs when the execution before has ended; the rest is an ordinary skip."""
    job_id = await outage(store_url, clock, components, 310, catch_up="all")
    running = most = 0

    async def slow(call: NodeCall) -> Any:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await trio.sleep(25)
        running -= 1
        return await fail(call)

    components["a"] = slow
    async with open_jobs(store_url, clock, components, epoch=2) as jobs:
        await jobs.change(job_id, max_retries=9)
        await wait(jobs, 500)
        row = await jobs.row(job_id)
        fires = await jobs.fires(job_id)
        runs = await jobs.runs(job_id)

    started = [seconds(run.started_at) for run in runs[2:]]
    # No back-off between the three missed ones; then two, of the third failure: 4 minutes.
    assert [at for at, _ in fires[2:5]] == [180, 240, 300]
    assert [pytest.approx(at, abs=1) for at in started[:3]] == [310, 335, 360]
    assert most == 1
    assert (3, pytest.approx(385 + 240, abs=1)) == (row.current_retry, seconds(row.next_run_at))


async def test_a_dead_job_drops_the_rest(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """So does a pause, a delete, an end."""
    job_id = await outage(store_url, clock, components, 3600, catch_up="all", max_retries=2)

    components["a"] = fail
    async with open_jobs(store_url, clock, components, epoch=2) as jobs:
        await wait(jobs, 3700)
        row = await jobs.row(job_id)
        fires = [at for at, _ in await jobs.fires(job_id)]

    assert (row.status, fires) == ("dead", [60, 120, 180, 240, 300])


async def test_at_most_the_newest_hundred_are_made_up_for(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """Older ones are dropped with a log line; here none can start, and none backs off."""
    job_id = await outage(
        store_url, clock, components, 3600, catch_up="all", interval_seconds=10, max_retries=1000
    )
    assert store_url.database is not None
    with closing(sqlite3.connect(store_url.database)) as database:
        database.execute("UPDATE users SET is_active = 0")
        database.commit()

    async with open_jobs(store_url, clock, components, epoch=2) as jobs:
        await wait(jobs, 3601)
        row = await jobs.row(job_id)
        fires = [at for at, _ in await jobs.fires(job_id)]

    assert fires == [10.0 * k for k in range(1, 14)] + [2610 + 10.0 * k for k in range(100)]
    assert (row.run_count, row.error_count, row.current_retry) == (13, 100, 100)
    assert seconds(row.next_run_at) == pytest.approx(3700, abs=1)


async def test_an_outcome_is_recorded_after_a_restart(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """The run is taken up again, ends, and counts once."""
    components["a"] = gate = Gate()
    async with open_jobs(store_url, clock, components, grace=0.1) as jobs:
        job_id = await jobs.add(interval_seconds=600)
        await gate.arrived.wait()
    leave_behind(store_url)
    gate.open.set()

    async with open_jobs(store_url, clock, components, epoch=2) as jobs:
        await wait(jobs, trio.current_time() + 5)
        row = await jobs.row(job_id)
        fires = await jobs.fires(job_id)
        recovered = jobs.tree.system.records(event="recovered")

    assert fires == [(600, "completed")]
    assert (row.run_count, row.current_repeat) == (1, 1)
    (of_job,) = (record for record in recovered if record.actor == f"/schedules/{job_id}")
    assert of_job.detail == {
        "from_status": "active",
        "recovery_count": None,
        "previous_owner": "server",
    }


@pytest.mark.parametrize("status", ["active", "paused", "done"])
async def test_a_run_that_ended_unseen_counts_once(
    store_url: URL, clock: MockClock, components: Components, status: str
) -> None:
    """The server died between the end of the run and its record; whatever the job is now."""
    async with open_jobs(store_url, clock, components) as jobs:
        job_id = await jobs.add(interval_seconds=600)
        await wait(jobs, 605)
        next_run_at = START + timedelta(seconds=1200) if status == "active" else None
        await jobs.put(schema.schedule_fires, outcome=None)
        await jobs.put(
            schema.schedules,
            run_count=0,
            current_repeat=0,
            status=status,
            next_run_at=next_run_at,
        )

    for epoch in (2, 3):
        async with open_jobs(store_url, clock, components, epoch=epoch) as jobs:
            await wait(jobs, trio.current_time() + 5)
            row = await jobs.row(job_id)
            assert (1, status) == (row.run_count, row.status)


async def test_a_deleted_execution_counts_as_cancelled(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """Nobody can say any more how it ended."""
    async with open_jobs(store_url, clock, components) as jobs:
        job_id = await jobs.add()
        await wait(jobs, 65)
        await jobs.put(schema.schedule_fires, outcome=None, execution_id="gone")
        await jobs.put(schema.schedules, current_repeat=0)
        await jobs.change(job_id, name="look")
        await jobs.tree.settle()
        row = await jobs.row(job_id)

    assert (row.run_count, row.current_repeat) == (1, 1)


class Jumping(Clock):
    """Wall time that follows Trio's, but for a jump."""

    def __init__(self) -> None:
        self._trio = TrioClock(START)
        self.jump = timedelta(0)

    def now(self) -> datetime:
        return self._trio.now() + self.jump


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("one", [60, 120]), ("skip", [60]), ("all", [60, 120, 180, 240, 300])],
)
async def test_a_machine_that_slept_has_missed_times(
    store_url: URL, clock: MockClock, components: Components, catch_up: str, expected: list[float]
) -> None:
    """The wall clock jumps, the sleeping actor does not notice, the keeper does."""
    wall = Jumping()
    async with open_jobs(store_url, clock, components, wall=wall) as jobs:
        job_id = await jobs.add(catch_up=catch_up)
        await wait(jobs, 70)

        wall.jump = timedelta(seconds=240 - 5)  # 305 by the wall
        await wait(jobs, 70 + INTERVAL)
        fires = [at for at, _ in await jobs.fires(job_id)]

    assert expected == fires


async def test_a_clock_set_back_only_delays(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """No time runs twice."""
    wall = Jumping()
    async with open_jobs(store_url, clock, components, wall=wall) as jobs:
        job_id = await jobs.add(cron="* * * * *")
        await wait(jobs, 70)
        wall.jump = timedelta(seconds=-60)

        await wait(jobs, 185)
        fires = [at for at, _ in await jobs.fires(job_id)]

    assert fires == [60, 120]


async def test_a_job_that_another_server_took_over_is_let_alone(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """Its former actor writes nothing; whoever finds the new owner dead takes it back."""
    async with open_jobs(store_url, clock, components) as jobs:
        job_id = await jobs.add(interval_seconds=45)
        await wait(jobs, INTERVAL + 5)
        await jobs.put(schema.schedules, epoch=99)
        await wait(jobs, 2 * INTERVAL - 5)
        fenced = await jobs.fires(job_id)

        await wait(jobs, 2 * INTERVAL + 5)
        fires = [at for at, _ in await jobs.fires(job_id)]

    assert fenced == []
    assert fires == [45]

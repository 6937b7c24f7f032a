"""A scheduled job: its ticks, what its runs make of it, and what people do to it meanwhile."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.engine.outcome import Failure
from pipelit.errors import BadRequest
from pipelit.nodes.base import Component, NodeCall
from pipelit.store import schema
from tests.kit.flows import ADA, START, Gate
from tests.kit.jobs import OWNER, Jobs, open_jobs, seconds

Components = dict[str, Component]


async def fail(call: NodeCall) -> Failure:
    await trio.lowlevel.checkpoint()
    return Failure(code="ConfigError", message="boom", retryable=False)


@pytest.fixture
async def jobs(store_url: URL, clock: MockClock, components: Components) -> AsyncIterator[Jobs]:
    """A running server."""
    async with open_jobs(store_url, clock, components) as running:
        yield running


async def wait(jobs: Jobs, until: float) -> None:
    """Wait until so many seconds after the start, and for what happens then to be over."""
    await trio.sleep(until - trio.current_time())
    await jobs.tree.settle()


async def test_a_job_runs_its_workflow_at_its_interval(jobs: Jobs) -> None:
    """First after one interval; each tick is one execution of the creator's."""
    job_id = await jobs.add(trigger_payload={"text": "go"}, timeout_seconds=30)

    await wait(jobs, 185)

    row = await jobs.row(job_id)
    first, *_ = runs = await jobs.runs(job_id)
    assert await jobs.fires(job_id) == [(60, "completed"), (120, "completed"), (180, "completed")]
    assert (
        row.run_count,
        row.current_repeat,
        row.error_count,
        row.last_error,
        row.status,
    ) == (3, 3, 0, "", "active")
    assert (seconds(row.last_run_at), seconds(row.next_run_at)) == (180, 240)
    assert [run.status for run in runs] == ["completed"] * 3
    assert (
        first.source,
        first.user_id,
        first.trigger_node_id,
        first.limit_seconds,
    ) == ("schedule", ADA, "t", 30)
    assert first.trigger_payload == {
        "scheduled_job_id": job_id,
        "scheduled_job_name": "job",
        "repeat_number": 0,
        "timestamp": "2026-02-03T08:16:00",
        "nominal_time": "2026-02-03T08:16:00",
        "payload": {"text": "go"},
    }
    assert first.trigger["text"] == "go"
    assert first.trigger["payload"] == {"text": "go", "scheduled_job_id": job_id}


async def test_a_cron_job_runs_at_its_matches(jobs: Jobs) -> None:
    """Whatever the time of its creation."""
    job_id = await jobs.add(cron="*/2 * * * *")

    await wait(jobs, 310)

    assert [at for at, _ in await jobs.fires(job_id)] == [60, 180, 300]


async def test_the_lesser_limit_counts(jobs: Jobs) -> None:
    """Of the job's and the workflow's."""
    job_id = await jobs.add(timeout_seconds=600)
    await wait(jobs, 65)
    await jobs.put(schema.workflows, max_execution_seconds=45)

    await wait(jobs, 125)

    assert [run.limit_seconds for run in await jobs.runs(job_id)] == [600, 45]


async def test_a_run_that_takes_too_long_is_a_failed_one(
    jobs: Jobs, components: Components
) -> None:
    """With the execution's own words."""
    components["a"] = Gate()
    job_id = await jobs.add(timeout_seconds=5)

    await wait(jobs, 70)

    row = await jobs.row(job_id)
    assert await jobs.fires(job_id) == [(60, "failed")]
    assert row.last_error == "Execution timed out after 5s (limit: 5s)"
    assert seconds(row.next_run_at) == pytest.approx(125, abs=0.5)


async def test_times_that_come_up_during_a_run_are_skipped(
    jobs: Jobs, components: Components
) -> None:
    """Only the next time moves, on the grid; the outcome follows when the run ends."""
    components["a"] = gate = Gate()
    job_id = await jobs.add()
    await wait(jobs, 200)
    during = await jobs.row(job_id)

    gate.open.set()
    await wait(jobs, 245)

    assert (
        during.run_count,
        during.current_repeat,
        seconds(during.last_run_at),
        seconds(during.next_run_at),
    ) == (0, 0, 60, 240)
    assert await jobs.fires(job_id) == [(60, "completed"), (240, "completed")]
    assert [outcome for outcome, _ in jobs.observed] == [
        *("started", "skipped", "skipped", "started"),
    ]
    assert all(0 <= lag < 1 for _, lag in jobs.observed)


async def test_an_inactive_workflow_skips(jobs: Jobs) -> None:
    """No counter moves, and it goes on when the workflow does."""
    job_id = await jobs.add()
    await jobs.put(schema.workflows, is_active=False)
    await wait(jobs, 130)
    row = await jobs.row(job_id)

    await jobs.put(schema.workflows, is_active=True)
    await wait(jobs, 185)

    assert (row.last_run_at, row.error_count, seconds(row.next_run_at)) == (None, 0, 180)
    assert [at for at, _ in await jobs.fires(job_id)] == [180]


async def test_failures_back_off_until_the_job_is_dead(jobs: Jobs, components: Components) -> None:
    """60, 120, 240 s apart; nothing after the fourth."""
    components["a"] = fail
    job_id = await jobs.add()

    await wait(jobs, 3000)

    row = await jobs.row(job_id)
    fires = await jobs.fires(job_id)
    assert [pytest.approx(at, abs=1) for at, _ in fires] == [60, 120, 240, 480]
    assert (
        row.status,
        row.next_run_at,
        row.error_count,
        row.current_retry,
        row.last_error,
    ) == ("dead", None, 4, 3, "Node a failed: boom")
    assert not jobs.alive(job_id)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"trigger_node_id": "a"}, "No matching trigger found for scheduled job {id}"),
        ({"trigger_node_id": None}, "No matching trigger found for scheduled job {id}"),
        ({}, "User 1 not found for scheduled job {id}"),
    ],
)
async def test_a_tick_that_cannot_start_is_a_failed_run(
    jobs: Jobs, settings: dict[str, Any], error: str
) -> None:
    """No trigger, or the creator is disabled; no execution comes of it."""
    job_id = await jobs.add(**settings)
    if not settings:
        await jobs.put(schema.users, is_active=False)

    await wait(jobs, 61)

    row = await jobs.row(job_id)
    assert (1, 1, error.format(id=job_id)) == (row.error_count, row.current_retry, row.last_error)
    assert (seconds(row.last_run_at), seconds(row.next_run_at)) == (60, 120)
    assert await jobs.fires(job_id) == [(60, "failed")]
    assert await jobs.runs(job_id) == []


async def test_a_job_is_done_after_its_repeats(jobs: Jobs) -> None:
    """Finished runs count, and its actor is gone."""
    job_id = await jobs.add(total_repeats=2)

    await wait(jobs, 400)

    row = await jobs.row(job_id)
    assert (row.status, row.next_run_at, row.current_repeat) == ("done", None, 2)
    assert len(await jobs.fires(job_id)) == 2
    assert not jobs.alive(job_id)


async def test_a_cancelled_run_is_a_repeat(jobs: Jobs, components: Components) -> None:
    """No other counter moves."""
    components["a"] = gate = Gate()
    job_id = await jobs.add(total_repeats=1)
    await gate.arrived.wait()
    (run,) = await jobs.runs(job_id)

    await jobs.tree.cancel(run.id)
    await jobs.tree.settle()

    row = await jobs.row(job_id)
    assert (row.status, row.current_repeat, row.run_count, row.error_count) == ("done", 1, 0, 0)
    assert await jobs.fires(job_id) == [(60, "cancelled")]


async def test_a_paused_job_records_its_running_outcome(jobs: Jobs, components: Components) -> None:
    """And is not rescheduled; resumed, it counts from then."""
    components["a"] = gate = Gate()
    job_id = await jobs.add()
    await gate.arrived.wait()
    await jobs.service.pause(OWNER, job_id)
    gate.open.set()
    await wait(jobs, 100)
    paused = await jobs.row(job_id)
    await wait(jobs, 500)
    rested = jobs.alive(job_id)

    await jobs.service.resume(OWNER, job_id)
    await wait(jobs, 565)

    assert (paused.status, paused.next_run_at, paused.run_count) == ("paused", None, 1)
    assert not rested
    first, second = await jobs.fires(job_id)
    assert first == (60, "completed")
    assert second == (pytest.approx(560, abs=0.1), "completed")


async def test_wrong_states_are_refused(jobs: Jobs) -> None:
    """In the contract's words."""
    job_id = await jobs.add()

    with pytest.raises(BadRequest, match="Cannot resume job with status 'active'"):
        await jobs.service.resume(OWNER, job_id)
    await jobs.service.pause(OWNER, job_id)
    with pytest.raises(BadRequest, match="Cannot pause job with status 'paused'"):
        await jobs.service.pause(OWNER, job_id)


async def test_a_deleted_job_ticks_no_more(jobs: Jobs, components: Components) -> None:
    """Its running execution continues, its actor goes."""
    components["a"] = gate = Gate()
    job_id = await jobs.add()
    await gate.arrived.wait()
    (run,) = await jobs.runs(job_id)

    await jobs.service.delete(OWNER, job_id)
    await wait(jobs, 200)
    status = await jobs.tree.status(run.id)
    gate.open.set()
    await wait(jobs, 500)

    assert status == "running"
    assert await jobs.tree.status(run.id) == "completed"
    assert len(await jobs.runs(job_id)) == 1
    assert not jobs.alive(job_id)


async def test_a_change_reaches_the_sleeping_actor(jobs: Jobs) -> None:
    """A new pattern counts at once, a new interval from the next reschedule."""
    job_id = await jobs.add(interval_seconds=3600)
    slow = await jobs.add(interval_seconds=100)

    await jobs.change(job_id, cron="* * * * *", interval_seconds=None)
    await jobs.change(slow, interval_seconds=10)
    await wait(jobs, 125)

    assert [at for at, _ in await jobs.fires(job_id)] == [60, 120]
    assert [at for at, _ in await jobs.fires(slow)] == [100, 110, 120]


async def test_a_crash_at_a_tick_starts_nothing_twice(jobs: Jobs) -> None:
    """The actor comes back and goes on where the rows are."""
    job_id = await jobs.add()
    for _ in range(3):
        jobs.tree.faults.crash_next(f"/schedules/{job_id}", RuntimeError("planted"))

    await wait(jobs, 130)

    fires = await jobs.fires(job_id)
    assert [60, pytest.approx(121, abs=1.5)] == [at for at, _ in fires]
    assert len(await jobs.runs(job_id)) == len(fires)


async def test_an_actor_that_gave_up_is_woken_again(jobs: Jobs) -> None:
    """The keeper finds the job overdue."""
    job_id = await jobs.add()
    for _ in range(4):
        jobs.tree.faults.crash_next(f"/schedules/{job_id}", RuntimeError("planted"))

    await wait(jobs, 150)

    assert [60, pytest.approx(125, abs=30)] == [at for at, _ in await jobs.fires(job_id)]


async def test_a_run_that_needs_a_person_does_not_hold_up_the_next(
    jobs: Jobs, components: Components
) -> None:
    """Interrupted is not running; each outcome is recorded when it comes."""
    components["a"] = gate = Gate()
    job_id = await jobs.add()
    await gate.arrived.wait()
    (run,) = await jobs.runs(job_id)
    await jobs.tree.change(run.id, status="interrupted")
    del components["a"]

    await wait(jobs, 125)
    between = await jobs.fires(job_id)
    await jobs.tree.change(run.id, status="completed")
    await wait(jobs, 240)

    assert between == [(60, None), (120, "completed")]
    assert (await jobs.fires(job_id))[:2] == [(60, "completed"), (120, "completed")]


async def test_a_nominal_time_fires_once_in_the_database(jobs: Jobs) -> None:
    """A time that has had its tick is skipped, whatever brought it back."""
    job_id = await jobs.add()
    await wait(jobs, 65)
    again = START.replace(minute=16)
    await jobs.put(schema.schedules, next_run_at=again)

    await wait(jobs, 100)

    assert await jobs.fires(job_id) == [(60, "completed")]
    assert len(await jobs.runs(job_id)) == 1

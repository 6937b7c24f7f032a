"""Whatever people do and however often the server dies, a job's books are right."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from pipelit.engine.outcome import Failure, Outcome
from pipelit.errors import BadRequest
from pipelit.nodes.base import Component, NodeCall
from pipelit.store.database import Purpose, open_engine, parse_database_url
from pipelit.store.migrate import Migrations
from tests.kit.flows import leave_behind
from tests.kit.jobs import OWNER, Jobs, open_jobs

pytestmark = pytest.mark.slow

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([5, 20, 61, 130])),
        st.tuples(st.just("pause"), st.none()),
        st.tuples(st.just("resume"), st.none()),
        st.tuples(st.just("change"), st.sampled_from([10, 30, 60])),
        st.tuples(st.just("cancel"), st.none()),
        st.tuples(st.just("crash"), st.integers(1, 2)),
        st.tuples(st.just("die"), st.sampled_from([1, 50, 200])),
    ),
    max_size=12,
)
RUNS = st.lists(st.tuples(st.sampled_from([0, 7, 45]), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=20, deadline=None)
@given(
    operations=OPERATIONS,
    runs=RUNS,
    catch_up=st.sampled_from(["one", "skip", "all"]),
    total=st.sampled_from([0, 3]),
)
def test_the_books_are_right(
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[str, Any]],
    runs: list[tuple[int, bool]],
    catch_up: str,
    total: int,
) -> None:
    """One execution per tick, one outcome per execution, counters that add up, nothing stuck."""
    url = parse_database_url(f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'db.sqlite3'}")
    engine = open_engine(url, Purpose.MIGRATE)
    Migrations().upgrade(engine)
    engine.dispose()
    clock = MockClock(autojump_threshold=0)
    calls = 0

    async def component(call: NodeCall) -> Outcome | Failure:
        nonlocal calls
        seconds, succeeds = runs[calls % len(runs)]
        calls += 1
        await trio.sleep(seconds)
        if succeeds:
            return Outcome(ports={"output": "x"})
        return Failure(code="ConfigError", message="boom", retryable=False)

    async def main() -> None:
        with trio.fail_after(100_000):
            await _live(url, clock, {"a": component}, operations, catch_up=catch_up, total=total)

    trio.run(main, clock=clock)


async def _live(
    url: Any,
    clock: MockClock,
    components: dict[str, Component],
    operations: list[tuple[str, Any]],
    *,
    catch_up: str,
    total: int,
) -> None:
    epoch, job_id, rest = 1, "", [*operations, ("wait", 130)]
    while rest:
        async with open_jobs(url, clock, components, epoch=epoch, grace=0.1) as jobs:
            if not job_id:
                job_id = await jobs.add(
                    interval_seconds=30, catch_up=catch_up, total_repeats=total, max_retries=2
                )
            while rest:
                name, value = rest.pop(0)
                if name == "die":
                    break
                await _do(jobs, job_id, name, value)
            else:
                await _check(jobs, job_id, total)
                return
        leave_behind(url, epoch=epoch)
        await trio.sleep(value)
        epoch += 1


async def _do(jobs: Jobs, job_id: str, name: str, value: Any) -> None:
    match name:
        case "wait":
            await trio.sleep(value)
        case "change":
            await jobs.change(job_id, interval_seconds=value)
        case "crash":
            for _ in range(value):
                jobs.tree.faults.crash_next(f"/schedules/{job_id}", RuntimeError("planted"))
        case "cancel":
            for run in await jobs.runs(job_id):
                if run.status == "running":
                    await jobs.tree.cancel(run.id)
        case _:
            with suppress(BadRequest):  # not in that state: an answer like any other
                await getattr(jobs.service, name)(OWNER, job_id)
    await jobs.tree.settle()


async def _check(jobs: Jobs, job_id: str, total: int) -> None:
    row = await jobs.row(job_id)
    if row.status == "active":
        await jobs.service.pause(OWNER, job_id)  # nothing new; let what runs come to its end
    await trio.sleep(200)
    await jobs.tree.settle()
    row, runs, fires = await jobs.row(job_id), await jobs.runs(job_id), await jobs.fires(job_id)
    outcomes = [outcome for _, outcome in fires]

    assert sorted(run.status for run in runs) == sorted(outcomes)  # every tick ran once
    assert row.run_count == outcomes.count("completed")
    assert row.error_count == outcomes.count("failed")
    assert row.current_repeat == len(outcomes) - row.error_count
    assert row.status in {"paused", "done", "dead"}
    assert not total or row.current_repeat <= total
    spans = sorted((run.created_at, run.completed_at) for run in runs)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))

"""`kill -9` again and again while schedules tick: no time runs twice, no outcome is lost."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from tests.kit.api import Api, calling
from tests.kit.server_process import ServerProcess, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KILLS = 3
POLICIES = ("one", "skip", "all")


async def build(api: Api) -> list[str]:
    """Make a workflow that takes half a second, and jobs that run it every second."""
    await api.setup()
    await api.build(
        "ticks",
        {
            "tick": ("trigger_schedule", {}),
            "nap": ("wait", {"extra_config": {"duration": 0.5, "unit": "seconds"}}),
            "say": ("reply_chat", {"extra_config": {"message": "{{ trigger.nominal_time }}"}}),
        },
        "tick -> nap, nap -> say",
    )
    jobs = []
    for number in range(3):
        body = {"name": f"job {number}", "workflow_id": 1, "interval_seconds": 1}
        made = await api.post("/schedules/", {**body, "catch_up": POLICIES[number]})
        jobs.append(made["id"])
    return jobs


async def wait_for_ticks(api: Api, jobs: list[str], more: int) -> None:
    """Wait until every job has had so many more runs."""
    first = {job: (await api.get(f"/schedules/{job}/"))["run_count"] for job in jobs}

    async def ticked(job: str) -> bool:
        count: int = (await api.get(f"/schedules/{job}/"))["run_count"]
        return count >= first[job] + more

    for job in jobs:
        await until(partial(ticked, job))


async def come_to_rest(api: Api, jobs: list[str]) -> dict[str, Any]:
    """Pause every job, wait for the last outcome, and return the jobs."""
    for job in jobs:
        await api.post(f"/schedules/{job}/pause/")

    async def settled() -> bool:
        ended = (await api.get("/executions/?status=completed&limit=0"))["total"]
        counted = [(await api.get(f"/schedules/{job}/"))["run_count"] for job in jobs]
        return bool(ended == sum(counted) == (await api.get("/executions/?limit=0"))["total"])

    await until(settled)
    return {job: await api.get(f"/schedules/{job}/") for job in jobs}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask a server again and again, for there is no event of what schedules do."""
    with trio.fail_after(60):
        while not await condition():  # noqa: ASYNC110 - another process has no trio.Event
            await trio.sleep(0.1)


async def test_schedules_survive_kills(tmp_path: Path) -> None:
    """Ticks, executions, outcomes and counters agree, and ticks go on after each start."""
    chance = Random(7)
    server = ServerProcess(tmp_path, free_port())
    async with calling(server.url) as api:
        async with server.run() as process:
            jobs = await build(api)
            await wait_for_ticks(api, jobs, 1)
            process.kill()
            await process.wait()
        for _ in range(KILLS - 1):
            async with server.run() as process:
                await trio.sleep(chance.uniform(0.1, 2.0))
                process.kill()
                await process.wait()
        async with server.run() as process:
            await wait_for_ticks(api, jobs, 1)
            rested = await come_to_rest(api, jobs)
            assert await server.stop(process) == 0

    with closing(sqlite3.connect(server.data / "db.sqlite3")) as database:
        for job, shown in rested.items():
            check(database, job, shown)


def check(database: sqlite3.Connection, job: str, shown: Any) -> None:
    """Check one job's books."""
    fires = database.execute(
        "SELECT execution_id, outcome FROM schedule_fires WHERE schedule_id = ?", [job]
    ).fetchall()
    runs = database.execute(
        "SELECT id, status FROM executions WHERE schedule_id = ?", [job]
    ).fetchall()
    assert sorted(fires) == sorted(runs)
    assert {outcome for _, outcome in fires} == {"completed"}
    assert shown["run_count"] == shown["current_repeat"] == len(fires)
    assert (shown["error_count"], shown["last_error"]) == (0, "")

"""Scheduled jobs as agents use them. Contract: node-types.md §8.10."""

import pytest
from sqlalchemy import update

from pipelit.store.schema import schedules
from tests.kit.tools import MAIN, OTHER, Bench, bench

__all__ = ["bench"]


async def make(bench: Bench, **fields: object) -> str:
    wanted = {"name": "hourly", "workflow_id": MAIN, "interval_seconds": 3600, **fields}
    return (await bench.call("create_schedule", **wanted))["schedule_id"]


async def test_an_agent_makes_a_job_for_its_owner(bench: Bench) -> None:
    """It is active at once, and the same call again makes no other."""
    made = await bench.call(
        "create_schedule", name="hourly", workflow_id=MAIN, interval_seconds=3600, key="k"
    )
    again = await bench.call(
        "create_schedule", name="hourly", workflow_id=MAIN, interval_seconds=3600, key="k"
    )
    (row,) = await bench.rows(schedules)

    assert made == {"success": True, "schedule_id": row.id, "name": "hourly", "status": "active"}
    assert again == made
    assert (row.user_id, row.timeout_seconds, row.max_retries, row.catch_up) == (1, 600, 3, "one")


async def test_a_job_may_follow_a_cron_expression(bench: Bench) -> None:
    await bench.call(
        "create_schedule", name="x", workflow_id=MAIN, cron="0 4 * * *", timezone="Asia/Tokyo"
    )
    (row,) = await bench.rows(schedules)

    assert (row.cron, row.timezone, row.interval_seconds) == ("0 4 * * *", "Asia/Tokyo", None)


async def test_a_job_is_paused_resumed_and_stopped(bench: Bench) -> None:
    """Each only where it makes sense."""
    job = await make(bench)

    paused = await bench.call("pause_schedule", schedule_id=job)
    twice = await bench.error("pause_schedule", schedule_id=job)
    resumed = await bench.call("resume_schedule", schedule_id=job)
    awake = await bench.error("resume_schedule", schedule_id=job)
    stopped = await bench.call("stop_schedule", schedule_id=job)

    assert paused == {"success": True, "schedule_id": job, "status": "paused"}
    assert twice == "Cannot pause job with status 'paused'"
    assert resumed == {"success": True, "schedule_id": job, "status": "active"}
    assert awake == "Cannot resume job with status 'active'"
    assert stopped == {"success": True, "schedule_id": job, "deleted": True}
    assert await bench.rows(schedules) == []


async def test_jobs_are_listed_newest_first(bench: Bench) -> None:
    """With filters and a limit; those of others are not there, not even for an admin's agent."""
    first = await make(bench)
    bench.clock.advance(1)
    second = await make(bench, name="cron", interval_seconds=None, cron="* * * * *")
    await bench.change(update(schedules).where(schedules.c.id == first).values(run_count=4))
    await bench.call("pause_schedule", schedule_id=first)

    everything = (await bench.call("list_schedules"))["results"]
    paused = (await bench.call("list_schedules", status="paused"))["results"]
    elsewhere = (await bench.call("list_schedules", workflow_id=99))["results"]
    one = (await bench.call("list_schedules", limit=1))["results"]

    assert [job["schedule_id"] for job in everything] == [second, first]
    assert paused == [
        {
            "schedule_id": first,
            "name": "hourly",
            "status": "paused",
            "workflow_id": MAIN,
            "interval_seconds": 3600,
            "cron": None,
            "next_run_at": None,
            "run_count": 4,
            "error_count": 0,
        }
    ]
    assert elsewhere == []
    assert [job["schedule_id"] for job in one] == [second]
    assert isinstance(one[0]["next_run_at"], str)


async def test_jobs_of_others_do_not_exist(bench: Bench) -> None:
    """Not even for the agent of an admin."""
    created = await bench.call(
        "create_schedule", as_workflow=OTHER, name="x", workflow_id=OTHER, interval_seconds=60
    )
    theirs = created["schedule_id"]

    for name in ("pause_schedule", "resume_schedule", "stop_schedule"):
        assert await bench.error(name, schedule_id=theirs) == "Schedule not found"
    assert (await bench.call("list_schedules"))["results"] == []


BROKEN = {"name": "x", "workflow_id": MAIN, "interval_seconds": 60}


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"interval_seconds": 0}, "interval_seconds must be >= 1"),
        ({"interval_seconds": 31_536_001}, "interval_seconds must be <= 31536000"),
        ({"interval_seconds": None}, "exactly one of interval_seconds, cron is required"),
        ({"cron": "* * * * *"}, "exactly one of interval_seconds, cron is required"),
        ({"interval_seconds": None, "cron": "* *"}, "cron: must have 5 fields"),
        ({"interval_seconds": None, "cron": "61 * * * *"}, "cron: invalid minute '61'"),
        ({"interval_seconds": None, "cron": "0 0 31 2 *"}, "cron: never matches"),
        ({"timezone": "UTC"}, "timezone: only allowed with cron"),
        (
            {"interval_seconds": None, "cron": "* * * * *", "timezone": "Mars/Base"},
            "timezone: must be an IANA time zone",
        ),
        ({"workflow_id": 99}, "Workflow 99 not found"),
        ({"workflow_id": OTHER}, f"Workflow {OTHER} not found"),
        ({"name": ""}, "name must not be blank"),
        ({"timeout_seconds": 0}, "timeout_seconds must be >= 1"),
        ({"max_retries": -1}, "max_retries must be >= 0"),
        ({"catch_up": "never"}, "catch_up must be one of: one, skip, all"),
    ],
)
async def test_a_job_that_makes_no_sense_is_refused(
    bench: Bench, changed: dict[str, object], error: str
) -> None:
    """In the words of the contract; nothing is stored."""
    assert await bench.error("create_schedule", **{**BROKEN, **changed}) == error
    assert await bench.rows(schedules) == []


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("pause_schedule", {"schedule_id": "x"}, "Schedule not found"),
        ("resume_schedule", {"schedule_id": "x"}, "Schedule not found"),
        ("stop_schedule", {"schedule_id": "x"}, "Schedule not found"),
        (
            "list_schedules",
            {"status": "asleep"},
            "Invalid status. Must be one of: active, dead, done, paused",
        ),
    ],
)
async def test_what_is_not_there_is_not_found(
    bench: Bench, name: str, arguments: dict[str, object], error: str
) -> None:
    assert await bench.error(name, **arguments) == error

"""nodes.md "Schedule actions" over a real socket."""

from typing import Any

import pytest
from sqlalchemy import update

from pipelit.store import schema
from tests.kit.canvas import CanvasServer
from tests.kit.canvas import canvas as bare
from tests.kit.store import migrated, store, store_url

__all__ = ["bare", "migrated", "store", "store_url"]

TICK = "/workflows/flow/nodes/tick/"


@pytest.fixture
async def canvas(bare: CanvasServer) -> CanvasServer:
    """A server with Bob's workflow, which has a schedule trigger and another node."""
    await bare.workflow()
    await bare.node("tick", "trigger_schedule")
    await bare.node("a", "code")
    bare.told()
    return bare


async def act(canvas: CanvasServer, action: str, node_id: str = "tick") -> Any:
    """Do something with the node's job, which must go well."""
    path = f"/workflows/flow/nodes/{node_id}/schedule/{action}"
    response = await canvas.call("POST", path)
    assert response.status_code == 200, response.text
    return response.json()


async def refused(canvas: CanvasServer, action: str, node_id: str = "tick") -> tuple[int, Any]:
    """Return how an action was refused."""
    response = await canvas.call("POST", f"/workflows/flow/nodes/{node_id}/schedule/{action}")
    return response.status_code, response.json()["detail"]


async def configure(canvas: CanvasServer, **extra_config: Any) -> None:
    """Set the node's settings."""
    body = {"config": {"extra_config": extra_config}}
    response = await canvas.call("PATCH", TICK, body)
    assert response.status_code == 200
    canvas.told()


async def jobs(canvas: CanvasServer) -> list[Any]:
    items: list[Any] = (await canvas.call("GET", "/schedules/")).json()["items"]
    return items


async def put(canvas: CanvasServer, **values: Any) -> None:
    """Change all jobs behind the server's back."""
    statement = update(schema.schedules).values(**values)
    await canvas.store.write(lambda conn: conn.execute(statement).rowcount)


async def test_start_makes_a_job_with_the_defaults(canvas: CanvasServer) -> None:
    """The caller's, named after the node; the node shows it and tells it."""
    node = await act(canvas, "start")

    (job,) = await jobs(canvas)
    assert (job["name"], job["trigger_node_id"], job["user_profile_id"]) == (
        "schedule:tick",
        "tick",
        2,
    )
    assert node["schedule_job"] == {
        "id": job["id"],
        "status": "active",
        "run_count": 0,
        "error_count": 0,
        "current_repeat": 0,
        "current_retry": 0,
        "total_repeats": 0,
        "max_retries": 3,
        "timeout_seconds": 600,
        "interval_seconds": 300,
        "cron": None,
        "timezone": None,
        "catch_up": "one",
        "last_run_at": None,
        "next_run_at": job["next_run_at"],
        "last_error": "",
        "created_at": job["created_at"],
    }
    assert node["config"]["is_active"] is True
    assert canvas.events == [("workflow:flow", "node_updated", node)]
    assert canvas.jobs.woken == [job["id"]]
    listed = (await canvas.call("GET", "/workflows/flow/nodes/")).json()
    assert [n["schedule_job"] for n in listed] == [node["schedule_job"], None]
    assert (await canvas.call("GET", TICK)).json() == node
    assert (await canvas.call("GET", "/workflows/flow/")).json()["nodes"] == listed


async def test_start_takes_the_settings_of_the_node(canvas: CanvasServer) -> None:
    """All of them; an empty payload is none."""
    await configure(
        canvas,
        cron="0 9 * * *",
        timezone="Europe/Berlin",
        catch_up="all",
        total_repeats=2.0,
        max_retries=0,
        timeout_seconds=5,
        trigger_payload={},
        other="ours not",
    )

    node = await act(canvas, "start")

    (job,) = await jobs(canvas)
    assert job["trigger_payload"] is None
    assert {name: job[name] for name in ("cron", "timezone", "catch_up", "interval_seconds")} == {
        "cron": "0 9 * * *",
        "timezone": "Europe/Berlin",
        "catch_up": "all",
        "interval_seconds": None,
    }
    assert (job["total_repeats"], job["max_retries"], job["timeout_seconds"]) == (2, 0, 5)
    assert node["schedule_job"]["next_run_at"] == "2026-02-04T08:00:00"


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"interval_seconds": 0}, ["extra_config.interval_seconds: must be >= 1"]),
        ({"interval_seconds": True}, ["extra_config.interval_seconds: must be an integer"]),
        (
            {"interval_seconds": 5, "cron": "* * * * *"},
            ["extra_config: exactly one of interval_seconds, cron is allowed"],
        ),
        ({"timezone": "UTC"}, ["extra_config.timezone: only allowed with cron"]),
        ({"cron": "0 0 31 2 *"}, ["extra_config.cron: never matches"]),
        (
            {
                "cron": "61 24 * * *",
                "timezone": "Mars/Base",
                "catch_up": "x",
                "total_repeats": -1,
                "max_retries": None,
                "timeout_seconds": 86_401,
                "trigger_payload": [],
            },
            [
                "extra_config.cron: invalid minute '61'",
                "extra_config.cron: invalid hour '24'",
                "extra_config.timezone: must be an IANA time zone",
                "extra_config.catch_up: must be one of: one, skip, all",
                "extra_config.total_repeats: must be >= 0",
                "extra_config.max_retries: must not be null",
                "extra_config.timeout_seconds: must be <= 86400",
                "extra_config.trigger_payload: must be an object",
            ],
        ),
    ],
)
async def test_bad_settings_are_refused_by_the_start(
    canvas: CanvasServer, settings: dict[str, Any], found: list[str]
) -> None:
    """With every problem, and nothing is made or told."""
    await configure(canvas, **settings)

    assert await refused(canvas, "start") == (422, {"validation_errors": found})
    assert await jobs(canvas) == []
    assert canvas.told() == []


async def test_pause_and_start_again(canvas: CanvasServer) -> None:
    """The node goes inactive with its job; a paused job starts with the settings of now."""
    await act(canvas, "start")
    paused = await act(canvas, "pause")
    await put(canvas, current_repeat=2, run_count=2)
    await configure(canvas, interval_seconds=7)

    started = await act(canvas, "start")

    assert paused["schedule_job"]["status"] == "paused"
    assert paused["schedule_job"]["next_run_at"] is None
    assert paused["config"]["is_active"] is False
    job = started["schedule_job"]
    assert (job["status"], job["interval_seconds"], job["run_count"]) == ("active", 7, 2)
    assert started["config"]["is_active"] is True
    assert len(await jobs(canvas)) == 1


@pytest.mark.parametrize("status", ["done", "dead"])
async def test_start_restarts_what_has_ended(canvas: CanvasServer, status: str) -> None:
    """With fresh counters, as the only way back."""
    await act(canvas, "start")
    counters = dict.fromkeys(("current_repeat", "current_retry", "run_count", "error_count"), 3)
    await put(canvas, status=status, next_run_at=None, last_error="boom", **counters)
    assert await refused(canvas, "pause") == (
        400,
        f"Cannot pause job with status '{status}'.",
    )

    job = (await act(canvas, "start"))["schedule_job"]

    assert job["status"] == "active"
    assert {job[name] for name in counters} == {0}
    assert job["last_error"] == ""
    assert job["next_run_at"] is not None


async def test_start_of_an_active_job_changes_settings_only(canvas: CanvasServer) -> None:
    """A new interval waits for the next reschedule, a cron expression does not."""
    first = (await act(canvas, "start"))["schedule_job"]
    await configure(canvas, interval_seconds=5)
    second = (await act(canvas, "start"))["schedule_job"]
    await configure(canvas, cron="0 12 * * *")
    third = (await act(canvas, "start"))["schedule_job"]

    assert (second["interval_seconds"], second["next_run_at"]) == (5, first["next_run_at"])
    assert (third["interval_seconds"], third["next_run_at"]) == (None, "2026-02-03T12:00:00")


async def test_stop_removes_the_job(canvas: CanvasServer) -> None:
    """In any state; the node goes inactive."""
    job = (await act(canvas, "start"))["schedule_job"]

    node = await act(canvas, "stop")

    assert node["schedule_job"] is None
    assert node["config"]["is_active"] is False
    assert await jobs(canvas) == []
    assert canvas.told() == [("workflow:flow", "node_updated")] * 2
    assert canvas.jobs.woken == [job["id"]] * 2


async def test_refusals(canvas: CanvasServer) -> None:
    """Wrong type, no job, no node, no workflow, not one's own."""
    no_job = (404, "No scheduled job found for this node.")
    wrong_type = (400, "Node is not a trigger_schedule.")

    assert await refused(canvas, "pause") == no_job
    assert await refused(canvas, "stop") == no_job
    assert await refused(canvas, "start", "a") == wrong_type
    assert await refused(canvas, "stop", "a") == wrong_type
    assert await refused(canvas, "pause", "a") == no_job
    await canvas.workflow("hers", key="ada-key", is_public=True)
    body = {"node_id": "tick", "component_type": "trigger_schedule"}
    await canvas.made("/workflows/hers/nodes/", body, key="ada-key")
    for action in ("start", "pause", "stop"):
        assert await refused(canvas, action, "x") == (404, "Node not found.")
        path = f"/workflows/hers/nodes/tick/schedule/{action}"
        foreign = await canvas.call("POST", path)
        nowhere = await canvas.call("POST", path.replace("hers", "nowhere"))
        assert (foreign.status_code, foreign.json()["detail"]) == (
            403,
            "You do not have permission to modify this workflow.",
        )
        assert (nowhere.status_code, nowhere.json()["detail"]) == (404, "Workflow not found.")


async def test_jobs_follow_and_go_with_their_node(canvas: CanvasServer) -> None:
    """A rename is followed, a change of type and a delete remove the job."""
    job = (await act(canvas, "start"))["schedule_job"]

    await canvas.call("PATCH", TICK, {"node_id": "tock"})
    (renamed,) = await jobs(canvas)
    retyped = await canvas.call(
        "PATCH", "/workflows/flow/nodes/tock/", {"component_type": "trigger_manual"}
    )
    gone = await jobs(canvas)
    await canvas.call(
        "PATCH", "/workflows/flow/nodes/tock/", {"component_type": "trigger_schedule"}
    )
    second = (await act(canvas, "start", "tock"))["schedule_job"]
    await canvas.call("DELETE", "/workflows/flow/nodes/tock/")

    assert renamed["trigger_node_id"] == "tock"
    assert retyped.json()["schedule_job"] is None
    assert gone == await jobs(canvas) == []
    assert canvas.jobs.woken == [job["id"]] * 2 + [second["id"]] * 2


async def test_the_own_job_is_the_oldest(canvas: CanvasServer) -> None:
    """Of several that name the node."""
    first = (await act(canvas, "start"))["schedule_job"]
    body = {"name": "more", "workflow_id": 1, "trigger_node_id": "tick", "interval_seconds": 5}
    await canvas.made("/schedules/", body)

    node = (await canvas.call("GET", TICK)).json()

    assert node["schedule_job"]["id"] == first["id"]

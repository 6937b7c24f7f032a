"""schedules.md over a real socket: the object, its settings, who may, each refusal, previews."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, update

from pipelit.store import schema
from tests.kit.canvas import START, CanvasServer
from tests.kit.canvas import canvas as bare
from tests.kit.store import migrated, store, store_url

__all__ = ["bare", "migrated", "store", "store_url"]

UNKNOWN = "/schedules/5be1c0d2-7d55-4d0e-9b0a-1f7d2c86a3e4/"
NOT_FOUND = {"detail": "Scheduled job not found."}
NO_WORKFLOW = {"detail": "Workflow not found."}


@pytest.fixture
async def canvas(bare: CanvasServer) -> CanvasServer:
    """A server on which workflow 1 is Bob's."""
    await bare.workflow()
    return bare


async def add(canvas: CanvasServer, *, key: str = "bob-key", **fields: Any) -> Any:
    """Create a job, every minute unless *fields* say otherwise."""
    pattern = {} if "cron" in fields else {"interval_seconds": 60}
    body = {"name": "job", "workflow_id": 1, **pattern, **fields}
    return await canvas.made("/schedules/", body, key=key)


async def again(canvas: CanvasServer, job: Any) -> Any:
    """Return the job as it is now."""
    return (await canvas.call("GET", f"/schedules/{job['id']}/")).json()


async def change(canvas: CanvasServer, job: Any, **fields: Any) -> Any:
    """Change a job and return it."""
    response = await canvas.call("PATCH", f"/schedules/{job['id']}/", fields)
    assert response.status_code == 200, response.text
    return response.json()


async def put(canvas: CanvasServer, **values: Any) -> None:
    """Change all jobs behind the server's back."""
    statement = update(schema.schedules).values(**values)
    await canvas.store.write(lambda conn: conn.execute(statement).rowcount)


async def problems(canvas: CanvasServer, method: str, path: str, body: object) -> list[str]:
    """Return what a request was refused for."""
    response = await canvas.call(method, path, body)
    assert response.status_code == 422
    found: list[str] = response.json()["detail"]["validation_errors"]
    return found


def after(job: Any, field: str, since: str) -> float:
    """Return the seconds between two times of a job."""
    first, second = (datetime.fromisoformat(job[name]) for name in (since, field))
    return (second - first).total_seconds()


async def test_a_created_job_is_shown_with_every_default(canvas: CanvasServer) -> None:
    """The example of the section: active at once, first run after one interval."""
    sent = {
        "name": "Daily digest",
        "workflow_id": 1,
        "interval_seconds": 86400,
        "total_repeats": 30,
        "trigger_payload": {"scope": "eu"},
        "status": "dead",
        "run_count": 5,
        "id": "mine",
    }

    job = await canvas.made("/schedules/", sent)

    assert job == {
        "id": job["id"],
        "name": "Daily digest",
        "description": "",
        "workflow_id": 1,
        "trigger_node_id": None,
        "user_profile_id": 2,
        "interval_seconds": 86400,
        "cron": None,
        "timezone": None,
        "catch_up": "one",
        "total_repeats": 30,
        "max_retries": 3,
        "timeout_seconds": 600,
        "trigger_payload": {"scope": "eu"},
        "status": "active",
        "current_repeat": 0,
        "current_retry": 0,
        "last_run_at": None,
        "next_run_at": job["next_run_at"],
        "run_count": 0,
        "error_count": 0,
        "last_error": "",
        "created_at": job["created_at"],
        "updated_at": job["created_at"],
    }
    assert len(job["id"]) == 36
    assert after(job, "next_run_at", "created_at") == 86400
    assert await again(canvas, job) == job


async def test_a_cron_job_has_a_zone(canvas: CanvasServer) -> None:
    """UTC unless said otherwise; the next time is the first match after now."""
    plain = await add(canvas, cron="30 9 * * *", timezone=None)
    berlin = await add(canvas, cron="30 9 * * *", timezone="Europe/Berlin", trigger_node_id="x")

    assert (plain["interval_seconds"], plain["timezone"]) == (None, "UTC")
    assert plain["next_run_at"] == "2026-02-03T09:30:00"
    assert berlin["next_run_at"] == "2026-02-03T08:30:00"
    assert berlin["trigger_node_id"] == "x"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (
            {},
            [
                "body.name: field required",
                "body.workflow_id: field required",
                "body.interval_seconds: field required",
            ],
        ),
        (
            {"name": "x", "workflow_id": 7, "cron": "61 * * * *", "timezone": "Mars/Base"},
            ["body.cron: invalid minute '61'", "body.timezone: must be an IANA time zone"],
        ),
        (
            {"name": "x", "workflow_id": 7, "cron": "* 24 0 13 8"},
            [
                "body.cron: invalid hour '24'",
                "body.cron: invalid day of month '0'",
                "body.cron: invalid month '13'",
                "body.cron: invalid day of week '8'",
            ],
        ),
        ({"name": "x", "workflow_id": 7, "cron": "@daily"}, ["body.cron: must have 5 fields"]),
        (
            {"name": "x", "workflow_id": 7, "cron": "* " * 50 + "*"},
            ["body.cron: must be at most 100 characters"],
        ),
        ({"name": "x", "workflow_id": 7, "cron": "0 0 31 2 *"}, ["body.cron: never matches"]),
        (
            {"name": "x", "workflow_id": 7, "cron": "* * * * *", "interval_seconds": 5},
            ["body: exactly one of interval_seconds, cron is allowed"],
        ),
        (
            {"name": "x", "workflow_id": 7, "interval_seconds": 5, "timezone": "UTC"},
            ["body.timezone: only allowed with cron"],
        ),
        (
            {
                "name": " ",
                "description": None,
                "workflow_id": "7",
                "trigger_node_id": 5,
                "interval_seconds": 31_536_001,
                "catch_up": "some",
                "total_repeats": -1,
                "max_retries": 1.5,
                "timeout_seconds": 86_401,
                "trigger_payload": [],
            },
            [
                "body.name: must not be blank",
                "body.description: must not be null",
                "body.interval_seconds: must be <= 31536000",
                "body.catch_up: must be one of: one, skip, all",
                "body.total_repeats: must be >= 0",
                "body.max_retries: must be an integer",
                "body.timeout_seconds: must be <= 86400",
                "body.trigger_payload: must be an object",
                "body.workflow_id: must be an integer",
                "body.trigger_node_id: must be a string",
            ],
        ),
        (
            {"name": "x", "workflow_id": 7, "interval_seconds": 0, "cron": 5, "timezone": 5},
            [
                "body.interval_seconds: must be >= 1",
                "body.cron: must be a string",
                "body.timezone: must be a string",
                "body: exactly one of interval_seconds, cron is allowed",
            ],
        ),
    ],
)
async def test_all_problems_are_told_together(
    canvas: CanvasServer, body: dict[str, Any], found: list[str]
) -> None:
    """What does not go together too, and no job comes of it."""
    assert await problems(canvas, "POST", "/schedules/", body) == found
    assert (await canvas.call("GET", "/schedules/")).json() == {"items": [], "total": 0}


async def test_a_job_needs_a_workflow_one_may_change(canvas: CanvasServer) -> None:
    """Unknown, somebody else's, public: the same answer."""
    await canvas.workflow("other", key="ada-key", is_public=True)

    for workflow_id in (2, 3):
        body = {"name": "x", "workflow_id": workflow_id, "interval_seconds": 5}
        response = await canvas.call("POST", "/schedules/", body)
        assert (response.status_code, response.json()) == (404, NO_WORKFLOW)


async def test_a_job_whose_actor_cannot_start_is_not_stored(canvas: CanvasServer) -> None:
    """500, in the contract's words."""
    canvas.jobs.starts = False

    body = {"name": "x", "workflow_id": 1, "interval_seconds": 5}
    response = await canvas.call("POST", "/schedules/", body)

    assert (response.status_code, response.json()) == (
        500,
        {"detail": "Failed to start scheduled job."},
    )
    assert (await canvas.call("GET", "/schedules/")).json()["total"] == 0


async def test_a_user_has_at_most_a_thousand_active_jobs(canvas: CanvasServer) -> None:
    """Others do not count, nor do paused ones."""
    common = {"workflow_id": 1, "user_id": 2, "interval_seconds": 5, "name": "x"}
    times = {"created_at": START, "updated_at": START, "next_run_at": START}
    rows = [{"id": f"job {n}", **common, **times} for n in range(1000)]
    await canvas.store.write(lambda conn: conn.execute(insert(schema.schedules), rows).rowcount)

    body = {"name": "x", "workflow_id": 1, "interval_seconds": 5}
    response = await canvas.call("POST", "/schedules/", body)
    await add(canvas, key="ada-key")
    await canvas.call("POST", "/schedules/job 1/pause/")

    assert (response.status_code, response.json()) == (409, {"detail": "Schedule limit reached."})
    await add(canvas)


async def test_the_list_is_newest_first_and_filtered(canvas: CanvasServer) -> None:
    """An unknown workflow has no jobs, an unknown status is refused."""
    await canvas.workflow("second")
    first = await add(canvas)
    second = await add(canvas, workflow_id=2)
    await canvas.call("POST", f"/schedules/{first['id']}/pause/")
    first = await again(canvas, first)

    async def listed(query: str) -> Any:
        return (await canvas.call("GET", f"/schedules/{query}")).json()

    assert await listed("") == {"items": [second, first], "total": 2}
    assert await listed("?status=&workflow_id=") == {"items": [second, first], "total": 2}
    assert await listed("?status=paused") == {"items": [first], "total": 1}
    assert await listed("?workflow_id=2") == {"items": [second], "total": 1}
    assert await listed("?workflow_id=99") == {"items": [], "total": 0}
    assert await listed("?limit=1&offset=1") == {"items": [first], "total": 2}
    assert (await listed("?status=x&workflow_id=y"))["detail"]["validation_errors"] == [
        "query.status: must be one of: active, paused, done, dead",
        "query.workflow_id: must be an integer",
    ]


async def test_jobs_are_seen_by_who_may_change_their_workflow(canvas: CanvasServer) -> None:
    """Its owner and admins; for everybody else there is no such job."""
    await canvas.workflow("ada-s", key="ada-key", is_public=True)
    hers = await add(canvas, key="ada-key", workflow_id=2)
    his = await add(canvas)
    path = f"/schedules/{hers['id']}/"

    listed = [await canvas.call("GET", "/schedules/", key=key) for key in ("ada-key", "bob-key")]
    assert [[job["id"] for job in page.json()["items"]] for page in listed] == [
        [his["id"], hers["id"]],
        [his["id"]],
    ]
    for method, more, body in (
        ("GET", "", None),
        ("GET", "preview/", None),
        ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None),
        ("POST", "pause/", None),
        ("POST", "resume/", None),
    ):
        for place in (path, UNKNOWN):
            response = await canvas.call(method, f"{place}{more}", body)
            assert (response.status_code, response.json()) == (404, NOT_FOUND), (method, more)
    assert (await canvas.call("GET", path, key="ada-key")).json() == hers


async def test_pause_and_resume(canvas: CanvasServer) -> None:
    """Counters are kept; a resumed job counts from now; wrong states are refused."""
    job = await add(canvas)
    await put(canvas, current_repeat=2, run_count=1, error_count=1, last_error="boom")

    paused = (await canvas.call("POST", f"/schedules/{job['id']}/pause/")).json()
    twice = await canvas.call("POST", f"/schedules/{job['id']}/pause/")
    resumed = (await canvas.call("POST", f"/schedules/{job['id']}/resume/")).json()
    again_resumed = await canvas.call("POST", f"/schedules/{job['id']}/resume/")

    assert (paused["status"], paused["next_run_at"]) == ("paused", None)
    assert (twice.status_code, twice.json()) == (
        400,
        {"detail": "Cannot pause job with status 'paused'."},
    )
    assert resumed["status"] == "active"
    assert after(resumed, "next_run_at", "updated_at") == 60
    assert (resumed["current_repeat"], resumed["last_error"]) == (2, "boom")
    assert (again_resumed.status_code, again_resumed.json()) == (
        400,
        {"detail": "Cannot resume job with status 'active'."},
    )
    assert canvas.jobs.woken == [job["id"]] * 2


@pytest.mark.parametrize("status", ["done", "dead"])
async def test_an_ended_job_does_not_come_back(canvas: CanvasServer, status: str) -> None:
    """Settings change, the status does not; pause and resume name it."""
    job = await add(canvas)
    await put(canvas, status=status, next_run_at=None)

    changed = await change(canvas, job, cron="* * * * *", interval_seconds=None)

    assert (changed["status"], changed["next_run_at"], changed["cron"]) == (
        status,
        None,
        "* * * * *",
    )
    for action in ("pause", "resume"):
        response = await canvas.call("POST", f"/schedules/{job['id']}/{action}/")
        assert response.status_code == 400
        assert response.json() == {"detail": f"Cannot {action} job with status '{status}'."}


async def test_settings_change_one_by_one(canvas: CanvasServer) -> None:
    """The next time stays; a foreign field, `workflow_id` and `trigger_node_id` have no effect."""
    job = await add(canvas, trigger_payload={"a": 1})
    fields = {
        "name": "other",
        "description": "d",
        "interval_seconds": 5.0,
        "catch_up": "all",
        "total_repeats": 9,
        "max_retries": 0,
        "timeout_seconds": 1,
        "trigger_payload": None,
    }

    changed = await change(canvas, job, **fields, workflow_id=9, trigger_node_id="z", status="done")

    assert changed == {**job, **fields, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > job["updated_at"]


async def test_an_empty_patch_changes_nothing(canvas: CanvasServer) -> None:
    """Not even `updated_at`; naming a value again is an update."""
    job = await add(canvas)

    assert await change(canvas, job) == job
    assert (await change(canvas, job, name="job"))["updated_at"] > job["updated_at"]


async def test_interval_and_cron_change_places(canvas: CanvasServer) -> None:
    """The next time is set anew; a zone goes with its expression."""
    job = await add(canvas)

    cron = await change(canvas, job, cron="0 12 * * *", interval_seconds=None)
    berlin = await change(canvas, job, timezone="Europe/Berlin")
    same = await change(canvas, job, cron="0 12 * * *")
    interval = await change(canvas, job, cron=None, interval_seconds=30)

    assert (cron["timezone"], cron["next_run_at"]) == ("UTC", "2026-02-03T12:00:00")
    assert berlin["next_run_at"] == same["next_run_at"] == "2026-02-03T11:00:00"
    assert (interval["cron"], interval["timezone"]) == (None, None)
    assert after(interval, "next_run_at", "updated_at") == 30


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (
            {"interval_seconds": 0, "max_retries": -1},
            ["body.interval_seconds: must be >= 1", "body.max_retries: must be >= 0"],
        ),
        ({"interval_seconds": None}, ["body.interval_seconds: field required"]),
        ({"cron": "* * * * *"}, ["body: exactly one of interval_seconds, cron is allowed"]),
        ({"timezone": "UTC"}, ["body.timezone: only allowed with cron"]),
        ({"cron": "0 0 30 2 *", "interval_seconds": None}, ["body.cron: never matches"]),
        ({"cron": "x"}, ["body.cron: must have 5 fields"]),
        (
            {"name": None, "catch_up": None, "total_repeats": None},
            [
                "body.name: must not be null",
                "body.catch_up: must not be null",
                "body.total_repeats: must not be null",
            ],
        ),
    ],
)
async def test_the_result_of_a_patch_must_be_valid(
    canvas: CanvasServer, fields: dict[str, Any], found: list[str]
) -> None:
    """And a refused one changes nothing."""
    job = await add(canvas)

    assert await problems(canvas, "PATCH", f"/schedules/{job['id']}/", fields) == found
    assert await again(canvas, job) == job


async def test_a_limit_already_reached_ends_the_job(canvas: CanvasServer) -> None:
    """`total_repeats` of 1…current_repeat."""
    job = await add(canvas)
    await put(canvas, current_repeat=3)

    more = await change(canvas, job, total_repeats=4)
    done = await change(canvas, job, total_repeats=3)

    assert (more["status"], done["status"], done["next_run_at"]) == ("active", "done", None)


async def test_delete(canvas: CanvasServer) -> None:
    """204, and its actor hears of it."""
    job = await add(canvas)

    response = await canvas.call("DELETE", f"/schedules/{job['id']}/")

    assert (response.status_code, response.content) == (204, b"")
    assert await again(canvas, job) == NOT_FOUND
    assert canvas.jobs.woken == [job["id"]]


async def test_batch_delete_takes_what_it_may(canvas: CanvasServer) -> None:
    """Unknown and foreign ids are skipped, duplicates are one, more than 1000 are refused."""
    await canvas.workflow("ada-s", key="ada-key")
    hers = await add(canvas, key="ada-key", workflow_id=2)
    mine, kept = await add(canvas), await add(canvas)
    ids = [mine["id"], mine["id"], hers["id"], "unknown"]

    response = await canvas.call("POST", "/schedules/batch-delete/", {"schedule_ids": ids})
    empty = await canvas.call("POST", "/schedules/batch-delete/", {"schedule_ids": []})

    assert (response.status_code, empty.status_code) == (204, 204)
    listed = (await canvas.call("GET", "/schedules/", key="ada-key")).json()
    assert [job["id"] for job in listed["items"]] == [kept["id"], hers["id"]]
    for body, found in (
        ({}, "body.schedule_ids: field required"),
        ({"schedule_ids": "x"}, "body.schedule_ids: must be an array"),
        ({"schedule_ids": [1]}, "body.schedule_ids[0]: must be a string"),
        ({"schedule_ids": ["x"] * 1001}, "body.schedule_ids: must have at most 1000 items"),
    ):
        assert await problems(canvas, "POST", "/schedules/batch-delete/", body) == [found]


async def test_a_preview_follows_the_written_rule(canvas: CanvasServer) -> None:
    """The example of the section: the hour that Berlin skips in spring."""
    canvas.clock.start = datetime(2026, 3, 28, 12, tzinfo=UTC)
    job = await add(canvas, cron="30 2 * * *", timezone="Europe/Berlin")

    response = await canvas.call("GET", f"/schedules/{job['id']}/preview/?count=2")

    assert response.json() == {
        "items": [
            {"nominal_time": "2026-03-29T01:00:00", "local_time": "2026-03-29T03:00:00+02:00"},
            {"nominal_time": "2026-03-30T00:30:00", "local_time": "2026-03-30T02:30:00+02:00"},
        ],
        "total": 2,
    }


async def test_a_preview_knows_the_status_and_the_repeats(canvas: CanvasServer) -> None:
    """Paused: what a resume would set now; done: nothing; five by default."""
    job = await add(canvas, total_repeats=7)
    path = f"/schedules/{job['id']}/preview/"

    five = (await canvas.call("GET", path)).json()
    seven = (await canvas.call("GET", f"{path}?count=100")).json()
    await canvas.call("POST", f"/schedules/{job['id']}/pause/")
    paused = (await canvas.call("GET", f"{path}?count=1")).json()
    await put(canvas, status="done")
    done = (await canvas.call("GET", path)).json()

    assert (five["total"], seven["total"], paused["total"]) == (5, 7, 1)
    assert five["items"][0]["nominal_time"] == job["next_run_at"]
    assert five["items"][0]["local_time"] == f"{job['next_run_at']}+00:00"
    assert paused["items"][0]["nominal_time"] > job["next_run_at"]
    assert done == {"items": [], "total": 0}
    for count, message in ((0, "must be >= 1"), (101, "must be <= 100"), ("x", "an integer")):
        (found,) = await problems(canvas, "GET", f"{path}?count={count}", None)
        assert found.startswith("query.count: ")
        assert message in found


async def test_a_deleted_workflow_takes_its_jobs(canvas: CanvasServer) -> None:
    """In the same transaction, and their actors hear of it."""
    job = await add(canvas)

    await canvas.call("DELETE", "/workflows/flow/")

    assert await again(canvas, job) == NOT_FOUND
    assert canvas.jobs.woken == [job["id"]]

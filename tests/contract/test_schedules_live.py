"""schedules.md on the whole server: real ticks, their executions, and what is told of them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit.api import Api
from tests.kit.site import People, Site
from tests.kit.ws_client import WsClient, ws_client

pytestmark = pytest.mark.slow


@pytest.fixture
async def socket(site: Site) -> AsyncIterator[WsClient]:
    """Olga's socket."""
    async with ws_client(site.url, token=site.olga) as client:
        yield client


async def build(api: Api, slug: str, message: str, **extra_config: Any) -> int:
    """Make a workflow that says *message* when its schedule ticks; return its id."""
    workflow = await api.build(
        slug,
        {
            "tick": ("trigger_schedule", {"extra_config": extra_config}),
            "say": ("reply_chat", {"extra_config": {"message": message}}),
        },
        "tick -> say",
    )
    return int(workflow["id"])


async def test_a_scheduled_run_is_an_execution_like_any_other(
    people: People, socket: WsClient, slug: str
) -> None:
    """Its events reach the workflow's channel; the job itself tells nothing."""
    said = "{{ trigger.text }} {{ trigger.source }} {{ tick.repeat_number }}"
    workflow_id = await build(people.olga, slug, said)
    await socket.subscribe(f"workflow:{slug}")

    body = {"name": "j", "workflow_id": workflow_id, "interval_seconds": 1, "total_repeats": 2}
    job = await people.olga.post("/schedules/", {**body, "trigger_payload": {"text": "hey"}})
    frames = [*await socket.hear_until("execution_completed")]
    frames += await socket.hear_until("execution_completed")
    await people.olga.call("PATCH", f"/schedules/{job['id']}/", {"name": "renamed"})
    await people.olga.call("DELETE", f"/schedules/{job['id']}/")

    started = [f["data"]["execution_id"] for f in frames if f["type"] == "execution_started"]
    first, second = [await people.olga.show(execution_id) for execution_id in started]
    assert first["final_output"] == {"output": "hey schedule 0"}
    assert second["final_output"] == {"output": "hey schedule 1"}
    assert first["trigger_payload"]["nominal_time"] == job["next_run_at"]
    assert {frame["type"] for frame in frames} == {
        "execution_started",
        "node_status",
        "execution_completed",
    }
    assert await socket.hear_rest() == []
    assert (await people.olga.call("GET", f"/schedules/{job['id']}/")).status_code == 404


async def test_a_node_s_schedule_runs_from_that_node(
    people: People, socket: WsClient, slug: str
) -> None:
    """Its actions are told as changes of the node."""
    await build(people.olga, slug, "{{ tick.payload.a }}", interval_seconds=1,
                trigger_payload={"a": 5})  # fmt: skip
    await socket.subscribe(f"workflow:{slug}")
    path = f"/workflows/{slug}/nodes/tick/schedule"

    started = await people.olga.post(f"{path}/start")
    frames = await socket.hear_until("execution_completed")
    stopped = await people.olga.post(f"{path}/stop")
    told = (await socket.hear_until("node_updated"))[-1]

    detail = await people.olga.show(frames[-1]["data"]["execution_id"])
    assert (frames[0]["type"], frames[0]["data"]) == ("node_updated", started)
    assert detail["trigger_payload"]["scheduled_job_id"] == started["schedule_job"]["id"]
    assert detail["final_output"] == {"output": "5"}
    assert told["data"] == stopped
    assert stopped["schedule_job"] is None


async def test_a_deleted_workflow_ticks_no_more(people: People, slug: str) -> None:
    """Its jobs are gone with it."""
    workflow_id = await build(people.olga, slug, "x")
    body = {"name": "j", "workflow_id": workflow_id, "interval_seconds": 1}
    job = await people.olga.post("/schedules/", body)

    await people.olga.call("DELETE", f"/workflows/{slug}/")

    listed = await people.olga.get(f"/schedules/?workflow_id={workflow_id}")
    assert listed == {"items": [], "total": 0}
    assert (await people.olga.call("GET", f"/schedules/{job['id']}/")).status_code == 404

"""Epics on the whole product: their channel, and the executions linked to their tasks."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit.api import Api
from tests.kit.model_server import ModelServer
from tests.kit.site import People, Site, build_thinker
from tests.kit.ws_client import WsClient, ws_client

pytestmark = pytest.mark.slow


@pytest.fixture
async def otto(site: Site) -> AsyncIterator[WsClient]:
    """The socket of somebody who made none of it."""
    async with ws_client(site.url, token=site.otto) as client:
        yield client


async def change(api: Api, path: str, **fields: object) -> Any:
    answer = await api.call("PATCH", path, fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_everybody_hears_an_epic_in_order(people: People, otto: WsClient) -> None:
    """Each change once, whole, on `epic:<id>`; nothing of other epics."""
    epic = await people.olga.post("/epics/", {"title": "E"})
    other = await people.olga.post("/epics/", {"title": "other"})
    channel, path = f"epic:{epic['id']}", f"/epics/{epic['id']}/"
    await otto.subscribe(channel)

    first = await people.olga.post("/tasks/", {"epic_id": epic["id"], "title": "1"})
    body = {"epic_id": epic["id"], "title": "2", "depends_on": [first["id"]]}
    second = await people.olga.post("/tasks/", body)
    await change(people.olga, f"/epics/{other['id']}/", title="unheard")
    done = await change(people.olga, f"/tasks/{first['id']}/", status="completed")
    active = await change(people.ada, path, status="active")
    await people.ada.call("DELETE", f"/tasks/{second['id']}/")
    await people.ada.call("POST", "/tasks/batch-delete/", {"task_ids": [first["id"]]})
    await people.ada.call("DELETE", path)

    frames = await otto.hear_until("epic_deleted")
    assert [(frame["type"], frame["data"].get("id")) for frame in frames] == [
        ("task_created", first["id"]),
        ("task_created", second["id"]),
        ("task_updated", second["id"]),
        ("task_updated", first["id"]),
        ("epic_updated", epic["id"]),
        ("task_deleted", second["id"]),
        ("tasks_deleted", None),
        ("epic_deleted", epic["id"]),
    ]
    data = [frame["data"] for frame in frames]
    assert data[:2] == [first, second]
    assert data[2]["status"] == "pending"
    assert data[3:5] == [done, active]
    assert data[6] == {"task_ids": [first["id"]]}
    for frame in frames:
        assert set(frame) == {"type", "channel", "timestamp", "data"}
        assert frame["channel"] == channel


async def test_a_cancelled_epic_cancels_what_its_tasks_run(
    people: People, slug: str, provider: ModelServer
) -> None:
    """The execution of a running task ends; that of a finished one goes on."""
    await build_thinker(people.olga, slug, provider)
    epic = await people.olga.post("/epics/", {"title": "E"})
    runs = {}
    for status in ("running", "completed"):
        execution_id = await people.olga.run(slug)
        runs[execution_id] = await provider.next_call()
        task = await people.olga.post("/tasks/", {"epic_id": epic["id"], "title": status})
        fields = {"status": status, "execution_id": execution_id}
        await change(people.olga, f"/tasks/{task['id']}/", **fields)

    await change(people.olga, f"/epics/{epic['id']}/", status="cancelled")

    (running, call), (completed, other_call) = runs.items()
    assert (await people.olga.show(running))["status"] == "cancelled"
    await call.wait_gone()
    assert (await people.olga.show(completed))["status"] == "running"
    await other_call.respond(400, {"error": {"message": "no"}})
    assert (await people.olga.wait_end(completed))["status"] == "failed"


async def test_who_may_not_cancel_an_execution_does_not_by_its_epic(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Everybody may cancel the epic with its tasks; what they run is the owner's."""
    await build_thinker(people.olga, slug, provider)
    epic = await people.olga.post("/epics/", {"title": "E"})
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()
    task = await people.olga.post("/tasks/", {"epic_id": epic["id"], "title": "T"})
    fields = {"status": "running", "execution_id": execution_id}
    await change(people.olga, f"/tasks/{task['id']}/", **fields)

    await change(people.otto, f"/epics/{epic['id']}/", status="cancelled")

    assert (await people.olga.get(f"/tasks/{task['id']}/"))["status"] == "cancelled"
    assert (await people.olga.show(execution_id))["status"] == "running"
    await call.say("Done.")
    assert (await people.olga.wait_end(execution_id))["status"] == "completed"


async def test_nobody_links_an_execution_of_others(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Its output would become readable, and a budget could end it."""
    await build_thinker(people.olga, slug, provider)
    execution_id = await people.olga.run(slug)
    epic = await people.otto.post("/epics/", {"title": "E", "budget_tokens": 0})
    task = await people.otto.post("/tasks/", {"epic_id": epic["id"], "title": "T"})

    path, fields = f"/tasks/{task['id']}/", {"execution_id": execution_id}
    answer = await people.otto.call("PATCH", path, fields)

    assert (answer.status_code, answer.json()) == (404, {"detail": "Execution not found."})
    await people.olga.post(f"/executions/{execution_id}/cancel/")


async def test_a_link_to_nothing_keeps_no_epic_from_being_cancelled(people: People) -> None:
    """`execution_id` need not name an execution."""
    epic = await people.olga.post("/epics/", {"title": "E"})
    task = await people.olga.post("/tasks/", {"epic_id": epic["id"], "title": "T"})
    fields = {"status": "running", "execution_id": "nothing"}
    await change(people.olga, f"/tasks/{task['id']}/", **fields)

    cancelled = await change(people.olga, f"/epics/{epic['id']}/", status="cancelled")

    assert cancelled["status"] == "cancelled"


async def test_the_end_of_an_execution_ends_its_task(
    people: People, slug: str, provider: ModelServer, otto: WsClient
) -> None:
    """Status, result and costs go over to task and epic; who waited goes on, and all is told."""
    await build_thinker(people.olga, slug, provider)
    epic = await people.olga.post("/epics/", {"title": "E"})
    task = await people.olga.post("/tasks/", {"epic_id": epic["id"], "title": "1"})
    body = {"epic_id": epic["id"], "title": "2", "depends_on": [task["id"]]}
    waiting = await people.olga.post("/tasks/", body)
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()
    fields = {"status": "running", "execution_id": execution_id}
    await change(people.olga, f"/tasks/{task['id']}/", **fields)
    await otto.subscribe(f"epic:{epic['id']}")

    await call.say("Done. " + "x" * 500)

    frames = await otto.hear_until("epic_updated")
    shown = await people.olga.show(execution_id)
    assert [(frame["type"], frame["data"]["id"]) for frame in frames] == [
        ("task_updated", waiting["id"]),
        ("task_updated", task["id"]),
        ("epic_updated", epic["id"]),
    ]
    unblocked, done, sums = (frame["data"] for frame in frames)
    assert unblocked["status"] == "pending"
    assert (done["status"], done["result_summary"]) == ("completed", "Done. " + "x" * 494)
    assert done["actual_tokens"] == shown["total_tokens"] > 0
    assert done["llm_calls"] == 1
    assert done["completed_at"] == shown["completed_at"]
    assert done["duration_ms"] > 0
    assert (sums["completed_tasks"], sums["spent_tokens"]) == (1, shown["total_tokens"])
    assert await people.olga.get(f"/tasks/{task['id']}/") == done
    assert await people.olga.get(f"/epics/{epic['id']}/") == sums


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_an_unsuccessful_end_is_carried_over(
    people: People, slug: str, provider: ModelServer, otto: WsClient, end: str
) -> None:
    """With its error; who waits stays blocked."""
    await build_thinker(people.olga, slug, provider)
    epic = await people.olga.post("/epics/", {"title": "E"})
    task = await people.olga.post("/tasks/", {"epic_id": epic["id"], "title": "1"})
    body = {"epic_id": epic["id"], "title": "2", "depends_on": [task["id"]]}
    waiting = await people.olga.post("/tasks/", body)
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()
    await change(people.olga, f"/tasks/{task['id']}/", execution_id=execution_id)
    await otto.subscribe(f"epic:{epic['id']}")

    if end == "failed":
        await call.respond(400, {"error": {"message": "no"}})
    else:
        await people.olga.post(f"/executions/{execution_id}/cancel/")

    told, sums = (frame["data"] for frame in await otto.hear_until("epic_updated"))
    shown = await people.olga.show(execution_id)
    assert told["status"] == end
    assert told["error_message"] == (shown["error_message"][:500] or None)
    assert sums["failed_tasks"] == int(end == "failed")
    assert (await people.olga.get(f"/tasks/{waiting['id']}/"))["status"] == "blocked"

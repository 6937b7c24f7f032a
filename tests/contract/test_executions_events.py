"""Stored events of an execution, as pages and as a server-sent stream. Contract: executions.md."""

import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import trio

from pipelit.clock import Clock
from tests.kit.api import PATIENCE, Api
from tests.kit.model_server import ModelServer
from tests.kit.people import problems
from tests.kit.site import People, Site, build_echo, build_thinker

pytestmark = pytest.mark.slow


async def stream(api: Api, execution_id: str, query: str = "", **headers: str) -> httpx2.Response:
    """Read a stream to its end."""
    headers = {"accept": "text/event-stream"} | headers
    return await api.call("GET", f"/executions/{execution_id}/events/{query}", **headers)


def ids(answer: httpx2.Response) -> list[int]:
    lines = [line for line in answer.text.splitlines() if line.startswith("id: ")]
    return [int(line.removeprefix("id: ")) for line in lines]


@pytest.fixture
async def ended(people: People, slug: str) -> str:
    """An execution of Olga's that has ended with five events."""
    await build_echo(people.olga, slug)
    execution_id = await people.olga.run(slug, text="hi")
    await people.olga.wait_end(execution_id)
    return execution_id


async def test_events_are_numbered_from_1_and_describe_the_run(
    people: People, slug: str, ended: str
) -> None:
    """Every envelope is complete; the terminal event has the summary."""
    page = await people.olga.get(f"/executions/{ended}/events/")

    assert set(page) == {"items", "total", "last_seq"}
    assert (page["total"], page["last_seq"]) == (5, 5)
    items = page["items"]
    assert [item["seq"] for item in items] == [1, 2, 3, 4, 5]
    workflow = await people.olga.get(f"/workflows/{slug}/")
    for item in items:
        assert set(item) == {"type", "channel", "seq", "timestamp", "execution_id", "data"}
        assert isinstance(item["timestamp"], float)
        assert item["channel"] == f"execution:{ended}"
        assert item["execution_id"] == item["data"]["execution_id"] == ended
    assert [item["type"] for item in items] == [
        "execution_started",
        *["node_status"] * 3,
        "execution_completed",
    ]
    assert items[0]["data"] == {"execution_id": ended, "workflow_id": workflow["id"]}
    node = {
        "execution_id": ended,
        "node_id": "say",
        "component_type": "reply_chat",
        "display_name": "Reply to Chat",
        "node_label": "say",
    }
    success = items[3]["data"]
    assert isinstance(success.pop("duration_ms"), int)
    assert [item["data"] for item in items[1:4]] == [
        node | {"status": "pending"},
        node | {"status": "running"},
        node | {"status": "success", "output": {"output": "hi"}},
    ]
    completed = items[4]["data"]
    assert isinstance(completed["activity_summary"].pop("total_duration_ms"), int)
    assert completed == {
        "execution_id": ended,
        "status": "completed",
        "output": {"output": "hi"},
        "activity_summary": {
            "total_steps": 1,
            "total_tokens": 0,
            "total_cost_usd": 0.0,
            "llm_calls": 0,
            "tool_invocations": 0,
            "child_count": 0,
        },
    }


async def test_pages_go_on_after_the_last_number(people: People, ended: str) -> None:
    """`total` counts what comes after `since`; past the end there is nothing."""

    async def page(query: str) -> tuple[list[int], int, int]:
        found = await people.olga.get(f"/executions/{ended}/events/?{query}")
        return [item["seq"] for item in found["items"]], found["total"], found["last_seq"]

    assert await page("since=0&limit=2") == ([1, 2], 5, 5)
    assert await page("since=2&limit=2") == ([3, 4], 3, 5)
    assert await page("since=4") == ([5], 1, 5)
    assert await page("since=99") == ([], 0, 5)
    assert await page("limit=0") == ([], 5, 5)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("since=-1", "query.since: must be >= 0"),
        ("since=one", "query.since: must be an integer"),
        ("limit=1001", "query.limit: must be <= 1000"),
    ],
)
async def test_bad_pages_are_refused(people: People, query: str, problem: str) -> None:
    """Before anybody asks whether the execution exists; as a stream too."""
    path = f"/executions/none/events/?{query}"

    assert problems(await people.olga.call("GET", path)) == [problem]
    as_stream = await people.olga.call("GET", path, accept="text/event-stream")
    assert problems(as_stream) == [problem]


async def test_a_stream_carries_the_same_events_and_ends(people: People, ended: str) -> None:
    """`id` and one line of JSON each, byte for byte what the page has; then the response ends."""
    items = (await people.olga.get(f"/executions/{ended}/events/"))["items"]

    answer = await stream(people.olga, ended, "?limit=1")

    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    parts = answer.text.removesuffix("\n\n").split("\n\n")
    assert [part.partition("\n")[0] for part in parts] == [f"id: {n}" for n in range(1, 6)]
    assert [json.loads(part.partition("\ndata: ")[2]) for part in parts] == items


async def test_a_stream_starts_where_the_client_was(people: People, ended: str) -> None:
    """`Last-Event-ID` wins over `since`; what is no number is ignored; after the end: 204."""

    async def start(query: str, **headers: str) -> list[int]:
        return ids(await stream(people.olga, ended, query, **headers))

    assert await start("?since=3") == [4, 5]
    assert await start("?since=1", last_event_id="4") == [5]
    assert await start("?since=3", last_event_id="x") == [4, 5]
    assert await start("", last_event_id="-1") == [1, 2, 3, 4, 5]
    for query, last in (("?since=5", ""), ("?since=99", ""), ("", "5")):
        answer = await stream(people.olga, ended, query, last_event_id=last)
        assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("accept", ["*/*", "text/*", "application/json"])
async def test_only_the_named_type_is_a_stream(people: People, ended: str, accept: str) -> None:
    """Anything else is a page."""
    answer = await people.olga.call("GET", f"/executions/{ended}/events/", accept=accept)

    assert answer.json()["last_seq"] == 5


async def test_a_stream_is_live_and_has_no_pieces_of_text(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Each event arrives as it happens, numbers without a gap, the end with the terminal event."""
    await build_thinker(people.olga, slug, provider)
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()
    seen: list[Any] = []

    with trio.fail_after(PATIENCE):
        async with people.olga.follow(execution_id) as events:
            seen.extend([await events.receive() for _ in range(3)])
            assert seen[-1]["data"]["status"] == "running"
            await call.say("Well.")
            seen.extend([event async for event in events])

    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    kinds = [event["type"] for event in seen]
    assert kinds[3:] == ["chat_message", "node_status", "execution_completed"]
    assert seen == (await people.olga.events(execution_id))


async def test_a_stream_ends_with_its_key(
    people: People, site: Site, slug: str, provider: ModelServer
) -> None:
    """Within a second of its expiry, without a terminal event; the run goes on."""
    await build_thinker(people.olga, slug, provider)
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()
    expires_at = Clock().now() + timedelta(seconds=1.5)
    site.add_key("olga", "olga-s-stream-key", expires_at)

    with trio.fail_after(PATIENCE):
        async with Api(people.olga.http, "olga-s-stream-key").follow(execution_id) as events:
            kinds = [event["type"] async for event in events]

    assert 0 <= (Clock().now() - expires_at).total_seconds() <= 1
    assert kinds == ["execution_started", "node_status", "node_status"]
    await call.say("Done.")
    assert (await people.olga.wait_end(execution_id))["status"] == "completed"

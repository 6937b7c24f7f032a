"""Stored events as a server-sent event stream. Contract: executions.md, "events"."""

import json

import pytest
import trio

from pipelit.web.call import Call
from pipelit.web.routing import Auth, Route
from pipelit.web.ws.sse import sse_response, start_after, wants_stream
from tests.kit.feed import FakeFeed, make_event
from tests.kit.web_server import ADA, serving


def stream_route(feed, stopping):
    async def handler(call: Call):
        after = start_after(call.raw_headers.get("last-event-id"), 0)
        execution_id = call.path.text("execution_id")
        return await sse_response(feed, ADA, execution_id, after, stopping=stopping)

    return Route(
        "GET", "/e/{execution_id}/", handler, auth=Auth.NONE, section="test", summary="Test."
    )


class Reader:
    """Reads one stream over the network."""

    def __init__(self, response):
        self._lines = response.aiter_lines()

    async def next_event(self):
        """Return (id, data) of the next event, None at the end of the stream."""
        fields = {}
        with trio.fail_after(5):
            async for line in self._lines:
                if not line:
                    return int(fields["id"]), json.loads(fields["data"])
                name, _, value = line.partition(": ")
                fields[name] = value
        assert not fields
        return None


def record(feed, count, last=None):
    for _ in range(count):
        feed.record("e")
    if last:
        feed.record("e", last)


@pytest.mark.parametrize("count", [0, 1, 50, 120])
async def test_stored_events_then_live_ones_until_the_terminal_event(count):
    """Every event once, its number as id; the response ends by itself."""
    feed, stopping = FakeFeed(), trio.Event()
    record(feed, count)
    async with (
        serving([stream_route(feed, stopping)], stopping=stopping) as server,
        server.client.stream("GET", "/api/v1/e/e/") as response,
    ):
        assert response.headers["content-type"] == "text/event-stream"
        reader = Reader(response)
        for n in range(1, count + 1):
            assert (await reader.next_event())[0] == n
        record(feed, 2, "execution_completed")
        heard = [await reader.next_event() for _ in range(3)]
        assert [number for number, _ in heard] == [count + 1, count + 2, count + 3]
        assert heard[2][1]["type"] == "execution_completed"
        assert await reader.next_event() is None


async def test_last_event_id_is_where_a_reader_goes_on():
    """Browsers send it by themselves."""
    feed, stopping = FakeFeed(), trio.Event()
    record(feed, 5, "execution_failed")
    async with serving([stream_route(feed, stopping)], stopping=stopping) as server:
        answer = await server.client.get("/api/v1/e/e/", headers={"Last-Event-ID": "4"})
        ids = [line for line in answer.text.splitlines() if line.startswith("id")]
        assert ids == ["id: 5", "id: 6"]


@pytest.mark.parametrize("last", ["6", "7"])
async def test_nothing_left_of_an_ended_execution_is_204(last):
    """Which tells browsers not to reconnect."""
    feed, stopping = FakeFeed(), trio.Event()
    record(feed, 5, "execution_cancelled")
    async with serving([stream_route(feed, stopping)], stopping=stopping) as server:
        answer = await server.client.get("/api/v1/e/e/", headers={"Last-Event-ID": last})
        assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("how", ["revoked", "stopping"])
async def test_revocation_and_shutdown_end_the_response(how):
    """Without a terminal event."""
    feed, stopping = FakeFeed(), trio.Event()
    record(feed, 1)
    async with (
        serving([stream_route(feed, stopping)], stopping=stopping) as server,
        server.client.stream("GET", "/api/v1/e/e/") as response,
    ):
        reader = Reader(response)
        assert (await reader.next_event())[0] == 1
        (stopping if how == "stopping" else feed.subscribers[0].revoked).set()
        assert await reader.next_event() is None


async def produce_alone(feed, heard):
    """Run the stream without a network, collecting what is sent."""
    response = await sse_response(feed, ADA, "e", 0, stopping=trio.Event())

    async def send(chunk):
        heard.append((trio.current_time(), chunk))
        await trio.lowlevel.checkpoint()

    await response.produce(send)


async def test_an_idle_stream_sends_a_comment_every_15_s(autojump_clock):
    """Proxies then keep it open."""
    feed, heard = FakeFeed(), []
    record(feed, 1)
    with trio.move_on_after(50):
        await produce_alone(feed, heard)
    assert [time for time, chunk in heard if chunk == b": keep-alive\n\n"] == [15.0, 30.0, 45.0]


async def test_a_deleted_execution_ends_the_stream(autojump_clock):
    """There is nothing more to wait for."""
    feed, heard = FakeFeed(), []
    record(feed, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce_alone, feed, heard)
        await trio.sleep(1)
        feed.stored.clear()
    assert trio.current_time() == 15.0


async def test_a_lost_end_is_read_when_the_hub_is_back(autojump_clock):
    """Else the stream would only say that it lives."""
    feed, heard = FakeFeed(), []
    record(feed, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce_alone, feed, heard)
        await trio.sleep(1)
        feed.lose("e", "execution_completed")
        feed.restart()
    assert [time for time, _ in heard] == [0.0, 1.0]


async def test_what_a_full_hub_did_not_tell_is_read_at_the_next_sign_of_life(autojump_clock):
    """Which asks the store anyway."""
    feed, heard = FakeFeed(), []
    record(feed, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce_alone, feed, heard)
        await trio.sleep(1)
        feed.lose("e", "execution_completed")
    assert [time for time, _ in heard] == [0.0, 15.0]


async def test_pieces_of_text_are_not_included(autojump_clock):
    """They have no number."""
    feed, heard = FakeFeed(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce_alone, feed, heard)
        await trio.testing.wait_all_tasks_blocked()
        feed.publish(make_event("execution:e", "chat_delta", text="x"))
        record(feed, 0, "execution_completed")
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream;q=0.5", True),
        ("*/*", False),
        ("text/*", False),
        ("", False),
    ],
)
def test_a_stream_is_only_for_who_names_it(accept, expected):
    """`*/*` is not enough."""
    assert wants_stream(accept) is expected


@pytest.mark.parametrize(
    ("last", "expected"),
    [(None, 3), ("0", 0), ("12", 12), ("-1", 3), ("x", 3), ("", 3), ("1.5", 3)],
)
def test_last_event_id_counts_only_as_a_number(last, expected):
    """Else `since` does."""
    assert start_after(last, 3) == expected

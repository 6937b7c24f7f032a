"""`/ws/` over a real socket: handshake, frames, close codes."""

import json
from contextlib import asynccontextmanager

import pytest
import trio
from trio_websocket import ConnectionClosed, open_websocket_url

from pipelit.web.ws.endpoint import SocketEndpoint
from tests.kit.feed import FakeFeed, make_event
from tests.kit.web_server import authenticate, serving


@asynccontextmanager
async def live(**kwargs):
    """Run a server whose `/ws/` reads a fake feed."""
    feed, stopping = FakeFeed(), trio.Event()
    endpoint = SocketEndpoint(feed, authenticate, stopping)
    async with serving(serve_socket=endpoint, stopping=stopping, **kwargs) as server:
        server_url = f"ws://{server.address.host}:{server.address.port}"
        yield server, feed, server_url


@asynccontextmanager
async def joined(url, key="ada-key", path="/ws/"):
    """Open a socket with a good key."""
    async with open_websocket_url(f"{url}{path}?token={key}") as ws:
        yield ws


async def say(ws, frame):
    await ws.send_message(frame if isinstance(frame, str) else json.dumps(frame))


async def hear(ws):
    with trio.fail_after(5):
        return json.loads(await ws.get_message())


async def closed_with(ws):
    """Wait for the close frame; return code and reason."""
    with trio.fail_after(5):
        try:
            while True:
                await ws.get_message()
        except ConnectionClosed as closed:
            # The client library leaves its socket to the garbage collector when the server closes.
            await trio.aclose_forcefully(ws._stream)
            return closed.reason.code, closed.reason.reason


async def subscribe(ws, channel, **more):
    await say(ws, {"type": "subscribe", "channel": channel, **more})
    return await hear(ws)


@pytest.mark.parametrize("query", ["", "?token=", "?token=nobody", "?token=revoked-key"])
async def test_a_bad_token_completes_the_upgrade_and_closes_with_1008(query):
    """Before the upgrade a browser would see neither code nor reason."""
    async with live() as (_, _, url), open_websocket_url(f"{url}/ws/{query}") as ws:
        assert await closed_with(ws) == (1008, "Invalid or missing token")


@pytest.mark.parametrize("path", ["/ws", "/ws/"])
async def test_both_slash_forms_open_a_socket(path):
    """`/ws` is `/ws/`, without a redirect."""
    async with live() as (_, _, url), joined(url, path=path) as ws:
        assert (await subscribe(ws, "epic:1"))["type"] == "subscribed"


async def test_a_bearer_header_opens_a_socket():
    """The key may stand in the handshake's Authorization header."""
    headers = [(b"authorization", b"Bearer ada-key")]
    async with live() as (_, _, url), open_websocket_url(f"{url}/ws/", extra_headers=headers) as ws:
        assert await subscribe(ws, "epic:1") == {"type": "subscribed", "channel": "epic:1"}


async def test_another_path_does_not_upgrade():
    """Only `/ws/` is a WebSocket; the handshake is answered like any unknown path."""
    handshake = (
        b"GET /ws/other?token=ada-key HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with live() as (server, _, _), await server.connect() as stream:
        await stream.send_all(handshake)
        answer = b""
        while not answer.endswith(b"}"):
            answer += await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 404")
        assert answer.endswith(b'{"detail":"Not Found"}')


async def test_events_flow_after_subscribed_and_not_after_unsubscribed():
    """A subscription begins and ends with its answer."""
    async with live() as (_, feed, url), joined(url) as ws:
        assert await subscribe(ws, "workflow:a") == {"type": "subscribed", "channel": "workflow:a"}
        feed.publish(make_event("workflow:a", "node_created", n=1))
        feed.publish(make_event("workflow:b", "node_created", n=2))
        assert (await hear(ws))["data"] == {"n": 1}
        await say(ws, {"type": "unsubscribe", "channel": "workflow:a"})
        assert await hear(ws) == {"type": "unsubscribed", "channel": "workflow:a"}
        feed.publish(make_event("workflow:a", "node_created", n=3))
        await say(ws, {"type": "unsubscribe", "channel": "never:seen"})
        assert await hear(ws) == {"type": "unsubscribed", "channel": "never:seen"}


async def test_subscribing_twice_is_answered_twice_and_delivers_once():
    """The second frame changes nothing."""
    async with live() as (_, feed, url), joined(url) as ws:
        await subscribe(ws, "workflow:a")
        await subscribe(ws, "workflow:a")
        feed.publish(make_event("workflow:a", "x", n=1))
        feed.publish(make_event("workflow:a", "x", n=2))
        assert [(await hear(ws))["data"]["n"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    "junk",
    [
        "{",
        "[]",
        "null",
        '"subscribe"',
        "{}",
        '{"type": "nonsense", "channel": "a"}',
        '{"type": ["subscribe"], "channel": "a"}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "channel": ""}',
        '{"type": "subscribe", "channel": 5}',
        json.dumps({"type": "subscribe", "channel": "c" * 301}),
        '{"type": "subscribe", "channel": "execution:a", "since": -1}',
        '{"type": "subscribe", "channel": "execution:a", "since": "1"}',
        '{"type": "subscribe", "channel": "execution:a", "since": true}',
        '{"type": "subscribe", "channel": "execution:a", "since": null}',
        '{"type": "batch", "enabled": 1}',
        '{"type": "batch"}',
        "[" * 5000,
    ],
)
async def test_junk_is_ignored_silently(junk):
    """Nothing comes back, and the socket works on."""
    async with live() as (_, _, url), joined(url) as ws:
        await say(ws, junk)
        assert await subscribe(ws, "workflow:a") == {"type": "subscribed", "channel": "workflow:a"}


async def test_since_is_ignored_on_other_channels():
    """Only executions have numbers."""
    async with live() as (_, _, url), joined(url) as ws:
        answer = await subscribe(ws, "workflow:a", since=3)
        assert answer == {"type": "subscribed", "channel": "workflow:a"}


async def test_batches_put_waiting_events_into_arrays_until_switched_off():
    """A single event travels in an array too; answers stay objects."""
    async with live() as (_, feed, url), joined(url) as ws:
        await subscribe(ws, "workflow:a")
        await say(ws, {"type": "batch", "enabled": True})
        assert await hear(ws) == {"type": "batch", "enabled": True}
        for n in range(3):
            feed.publish(make_event("workflow:a", "x", n=n))
        assert [event["data"]["n"] for event in await hear(ws)] == [0, 1, 2]
        feed.publish(make_event("workflow:a", "x", n=3))
        assert [event["data"]["n"] for event in await hear(ws)] == [3]
        await say(ws, {"type": "batch", "enabled": False})
        assert await hear(ws) == {"type": "batch", "enabled": False}
        feed.publish(make_event("workflow:a", "x", n=4))
        assert (await hear(ws))["data"] == {"n": 4}


async def test_a_binary_frame_closes_with_1003():
    """Also an empty one."""
    async with live() as (_, _, url), joined(url) as ws:
        await ws.send_message(b"")
        assert (await closed_with(ws))[0] == 1003


@pytest.mark.parametrize("text", ["x" * 65_537, "ä" * 40_000])
async def test_a_frame_over_64_kib_closes_with_1009(text):
    """Bytes count, not characters."""
    async with live() as (_, _, url), joined(url) as ws:
        await ws.send_message(text)
        assert (await closed_with(ws))[0] == 1009


async def test_a_frame_of_64_kib_is_read():
    """The limit itself is allowed."""
    async with live() as (_, _, url), joined(url) as ws:
        await ws.send_message(" " * 65_536)
        assert (await subscribe(ws, "workflow:a"))["type"] == "subscribed"


async def test_more_than_200_channels_close_with_1008():
    """The 201st subscription is one too many; the 200th twice is not."""
    async with live() as (_, _, url), joined(url) as ws:
        for n in range(200):
            await subscribe(ws, f"epic:{n}")
        await subscribe(ws, "epic:199")
        await say(ws, {"type": "subscribe", "channel": "epic:200"})
        assert await closed_with(ws) == (1008, "Too many subscriptions")


async def test_a_revoked_key_closes_with_1008():
    """What was opened with a key ends with it."""
    async with live() as (_, feed, url), joined(url) as ws:
        await subscribe(ws, "workflow:a")
        feed.subscribers[0].revoked.set()
        assert await closed_with(ws) == (1008, "Invalid or missing token")


async def test_a_stopping_server_closes_with_1001():
    """Clients learn it from the close frame, and the server stops at once."""
    async with live(grace=10.0) as (server, _, url), joined(url) as ws:
        await subscribe(ws, "workflow:a")
        started = trio.current_time()
        server.stopping.set()
        assert await closed_with(ws) == (1001, "Server shutting down")
        await server.stopped.wait()
        assert trio.current_time() - started < 2.0


async def test_a_crash_of_the_endpoint_closes_with_1011():
    """A crash never looks like a clean close."""
    async with live() as (_, feed, url), joined(url) as ws:
        await subscribe(ws, "workflow:a")

        async def explode():
            raise RuntimeError("the store is on fire")

        feed.before_replay = explode
        feed.stored["e"] = [make_event("execution:e", "x", seq=1)]
        await say(ws, {"type": "subscribe", "channel": "execution:e", "since": 0})
        assert (await closed_with(ws))[0] == 1011


async def test_a_client_that_leaves_is_forgotten():
    """The hub has nobody to deliver to."""
    async with live() as (_, feed, url):
        async with joined(url) as ws:
            await subscribe(ws, "workflow:a")
        with trio.fail_after(5):
            while feed.subscribers:
                await trio.lowlevel.checkpoint()


async def test_a_client_that_does_not_read_is_closed_with_1013():
    """It hears why when it reads again; the hub never waited for it."""
    async with live() as (_, feed, url), joined(url) as ws:
        await subscribe(ws, "workflow:a")
        large = make_event("workflow:a", "node_status", text="x" * 200_000)
        for _ in range(100):
            feed.publish(large)
            await trio.testing.wait_all_tasks_blocked()
        assert await closed_with(ws) == (1013, "Slow consumer")


async def test_one_socket_reads_while_its_neighbour_does_not():
    """A slow client slows nobody."""
    async with live() as (_, feed, url), joined(url) as deaf, joined(url) as ws:
        await subscribe(deaf, "workflow:a")
        await subscribe(ws, "workflow:a")
        for n in range(100):
            feed.publish(make_event("workflow:a", "node_status", n=n, text="x" * 200_000))
            assert (await hear(ws))["data"]["n"] == n
        assert await closed_with(deaf) == (1013, "Slow consumer")

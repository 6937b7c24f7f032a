"""The WebSocket: its handshake, its frames and its ends. Contract: websocket.md."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import trio
from trio_websocket import ConnectionRejected

from pipelit.clock import Clock
from tests.kit.site import People, Site
from tests.kit.ws_client import WsClient, ws_client

pytestmark = pytest.mark.slow

INVALID_TOKEN = (1008, "Invalid or missing token")


@pytest.fixture
async def olga(site: Site) -> AsyncIterator[WsClient]:
    """Olga's socket."""
    async with ws_client(site.url, token=site.olga) as client:
        yield client


@pytest.mark.parametrize("token", [None, "", "unknown", "olga-s-key%20"])
async def test_without_a_key_the_socket_is_upgraded_and_closed(
    site: Site, token: str | None
) -> None:
    """So that a browser's script can see why."""
    async with ws_client(site.url, token=token) as client:
        assert await client.hear_close() == INVALID_TOKEN


@pytest.mark.parametrize("path", ["/ws/", "/ws"])
async def test_a_key_opens_the_socket(site: Site, path: str) -> None:
    """In the query or in the header, with and without the slash."""
    for way in ({"token": site.olga}, {"bearer": site.olga}):
        async with ws_client(site.url, path, **way) as client:
            assert await client.subscribe("workflow:x")
    async with ws_client(site.url, path, bearer="unknown") as client:
        assert await client.hear_close() == INVALID_TOKEN


async def test_no_socket_is_anywhere_else(site: Site) -> None:
    """404 instead of an upgrade."""
    rejected = pytest.RaisesExc(ConnectionRejected, check=lambda error: error.status_code == 404)
    with pytest.RaisesGroup(rejected, flatten_subgroups=True):
        async with ws_client(site.url, "/ws/more", token=site.olga):
            pass


async def test_a_key_that_expires_closes_the_socket(site: Site) -> None:
    """Within a second."""
    expires_at = Clock().now() + timedelta(seconds=1.5)
    site.add_key("olga", "olga-s-short-key", expires_at)
    async with ws_client(site.url, token="olga-s-short-key") as client:
        await client.subscribe("workflow:x")

        assert await client.hear_close() == INVALID_TOKEN

        assert 0 <= (Clock().now() - expires_at).total_seconds() <= 1
    async with ws_client(site.url, token="olga-s-short-key") as client:
        assert await client.hear_close() == INVALID_TOKEN


async def test_subscriptions_are_answered(olga: WsClient) -> None:
    """Any text, any number of times, and leaving what one never joined."""
    for channel in ("workflow:x", "anything", "execution:", "x" * 300, "workflow:x"):
        answer = await olga.ask(type="subscribe", channel=channel)
        assert answer == {"type": "subscribed", "channel": channel}
        answer = await olga.ask(type="unsubscribe", channel=channel)
        assert answer == {"type": "unsubscribed", "channel": channel}
    answer = await olga.ask(type="unsubscribe", channel="never")
    assert answer == {"type": "unsubscribed", "channel": "never"}


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        "[]",
        '"subscribe"',
        "",
        {},
        {"type": "hello", "channel": "x"},
        {"type": "subscribe"},
        {"type": "subscribe", "channel": ""},
        {"type": "subscribe", "channel": 7},
        {"type": "subscribe", "channel": "x" * 301},
        {"type": "subscribe", "channel": "execution:x", "since": -1},
        {"type": "subscribe", "channel": "execution:x", "since": "1"},
        {"type": "subscribe", "channel": "execution:x", "since": None},
        {"type": "subscribe", "channel": "execution:x", "since": 1.5},
        {"type": "subscribe", "channel": "execution:x", "since": True},
        {"type": "pong"},
        {"type": "batch", "enabled": "yes"},
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_ignored(olga: WsClient, frame: object) -> None:
    """The socket stays open and the next answer is to the next question."""
    await olga.say(frame)

    assert await olga.hear_rest() == []


async def test_a_frame_over_64_kib_closes(olga: WsClient) -> None:
    """1009; up to 64 KiB it is read."""
    await olga.say(" " * (64 * 1024))
    assert await olga.hear_rest() == []

    await olga.say(" " * (64 * 1024 + 1))

    assert (await olga.hear_close())[0] == 1009


async def test_a_binary_frame_closes(olga: WsClient) -> None:
    """1003."""
    await olga.connection.send_message(b'{"type": "pong"}')

    assert (await olga.hear_close())[0] == 1003


async def test_the_201st_channel_closes(olga: WsClient) -> None:
    """Leaving one makes room for another."""
    for number in range(200):
        await olga.subscribe(f"workflow:{number}")
    await olga.ask(type="unsubscribe", channel="workflow:7")
    await olga.subscribe("workflow:new")
    await olga.subscribe("workflow:new")

    await olga.say({"type": "subscribe", "channel": "workflow:one-too-many"})

    assert await olga.hear_close() == (1008, "Too many subscriptions")


async def test_batches_come_as_arrays(people: People, slug: str, olga: WsClient) -> None:
    """A single event too; answers stay objects; off again, events are single again."""
    await people.olga.post("/workflows/", {"name": slug, "slug": slug})
    await olga.subscribe(f"workflow:{slug}")

    async def rename() -> None:
        assert (await people.olga.call("PATCH", f"/workflows/{slug}/", {"name": "N"})).is_success

    await rename()
    assert (await olga.hear())["type"] == "workflow_updated"
    answer = await olga.ask(type="batch", enabled=True)
    assert answer == {"type": "batch", "enabled": True}
    await rename()
    (event,) = await olga.hear()
    assert event["type"] == "workflow_updated"
    assert await olga.ask(type="subscribe", channel="a") == {"type": "subscribed", "channel": "a"}
    assert await olga.ask(type="batch", enabled=False) == {"type": "batch", "enabled": False}
    await rename()
    assert (await olga.hear())["type"] == "workflow_updated"


async def test_who_does_not_read_is_closed(people: People, slug: str, site: Site) -> None:
    """With 4 MiB waiting: 1013, and nobody else is held up."""
    await people.olga.post("/workflows/", {"name": slug, "slug": slug})
    async with (
        ws_client(site.url, token=site.olga, receive_buffer=4096) as lazy,
        ws_client(site.url, token=site.olga) as eager,
    ):
        await lazy.subscribe(f"workflow:{slug}")
        await eager.subscribe(f"workflow:{slug}")
        for number in range(130):
            body = {"description": f"{number} ".ljust(99_000, "x")}
            await people.olga.call("PATCH", f"/workflows/{slug}/", body)
            event = await eager.hear()
            assert event["data"]["description"].startswith(f"{number} ")

        assert await lazy.hear_close() == (1013, "Slow consumer")
        assert await eager.hear_rest() == []


async def test_the_query_string_is_not_logged(site: Site) -> None:
    """It holds the key."""
    async with ws_client(site.url, token=site.olga) as client:
        await client.subscribe("x")

    log = await trio.Path(site.server.log).read_text()

    assert "token=" not in log
    assert site.olga not in log

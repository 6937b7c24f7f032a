"""The heartbeat: asked after 30 s of silence, given up on 10 s later."""

import trio

from pipelit.web.ws.endpoint import SocketEndpoint
from tests.kit.feed import FakeFeed, make_event
from tests.kit.socket import connected
from tests.kit.web_server import authenticate


def make_endpoint(feed=None):
    return SocketEndpoint(feed or FakeFeed(), authenticate, trio.Event())


async def test_a_silent_client_is_pinged_after_30_s(autojump_clock):
    """Neither side has said anything for 30 s."""
    async with connected(make_endpoint()) as client:
        started = trio.current_time()
        assert await client.hear() == {"type": "ping"}
        assert trio.current_time() - started == 30.0


async def test_a_pong_keeps_the_socket(autojump_clock):
    """Each answered ping is followed by another 30 s of silence."""
    async with connected(make_endpoint()) as client:
        for _ in range(3):
            assert await client.hear() == {"type": "ping"}
            await client.say({"type": "pong"})
        assert trio.current_time() >= 90.0


async def test_without_a_pong_the_socket_closes_10_s_later(autojump_clock):
    """Other frames are not an answer."""
    async with connected(make_endpoint()) as client:
        assert await client.hear() == {"type": "ping"}
        asked = trio.current_time()
        await trio.sleep(4)
        await client.say({"type": "subscribe", "channel": "epic:1"})
        assert await client.hear() == {"type": "subscribed", "channel": "epic:1"}
        assert await client.hear() == (1001, "Heartbeat timeout")
        assert trio.current_time() - asked == 10.0


async def test_a_late_pong_to_the_last_ping_does_not_answer_the_next(autojump_clock):
    """A pong sent unasked is no promise for later."""
    async with connected(make_endpoint()) as client:
        await client.say({"type": "pong"})
        assert await client.hear() == {"type": "ping"}
        assert await client.hear() == (1001, "Heartbeat timeout")


async def test_frames_in_either_direction_put_the_ping_off(autojump_clock):
    """A busy socket needs no heartbeat."""
    feed = FakeFeed()
    async with connected(make_endpoint(feed)) as client:
        await client.say({"type": "subscribe", "channel": "epic:1"})
        await client.hear()
        await trio.sleep(20)
        feed.publish(make_event("epic:1", "epic_updated"))
        await client.hear()
        await trio.sleep(20)
        await client.say({"type": "nonsense"})
        started = trio.current_time()
        assert await client.hear() == {"type": "ping"}
        assert trio.current_time() - started == 30.0


async def test_a_client_that_hangs_up_ends_the_endpoint(autojump_clock):
    """Nothing is left running for it."""
    feed = FakeFeed()
    async with connected(make_endpoint(feed)) as client:
        await trio.testing.wait_all_tasks_blocked()
        assert len(feed.subscribers) == 1
        await client.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert feed.subscribers == []


async def test_times_that_cannot_be_halved_exactly_do_not_spin(autojump_clock):
    """2.3 + 30 - 2.3 is a little less than 30 for a computer: that rest is no time to sleep."""
    await trio.sleep(2.3)
    async with connected(make_endpoint()) as client:
        assert await client.hear() == {"type": "ping"}

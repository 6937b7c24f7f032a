"""Replay with `since`: every stored event once, in order, then live ones."""

import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelit.web.ws.endpoint import SocketEndpoint
from tests.kit.feed import FakeFeed, make_event
from tests.kit.socket import connected
from tests.kit.web_server import authenticate

CHANNEL = "execution:e"


def make_endpoint(feed):
    return SocketEndpoint(feed, authenticate, trio.Event())


async def subscribe(client, **more):
    await client.say({"type": "subscribe", "channel": CHANNEL, **more})
    return await client.hear()


async def hear_numbers(client, count):
    return [(await client.hear())["seq"] for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 100, 125])
async def test_since_0_replays_everything_and_goes_on_live(count):
    """Page borders make no difference."""
    feed = FakeFeed()
    for _ in range(count):
        feed.record("e")
    async with connected(make_endpoint(feed)) as client:
        answer = await subscribe(client, since=0)
        assert answer == {"type": "subscribed", "channel": CHANNEL, "last_seq": count}
        assert await hear_numbers(client, count) == list(range(1, count + 1))
        await trio.testing.wait_all_tasks_blocked()
        feed.record("e")
        assert await hear_numbers(client, 1) == [count + 1]


async def test_since_beyond_the_last_counts_as_the_last():
    """The next event still arrives."""
    feed = FakeFeed()
    feed.record("e")
    async with connected(make_endpoint(feed)) as client:
        assert (await subscribe(client, since=10**20))["last_seq"] == 1
        feed.record("e")
        assert await hear_numbers(client, 1) == [2]


async def test_an_event_stored_while_an_empty_page_is_read_is_not_lost():
    """It was held back as "the replay will read it", so the replay reads again."""

    class LateFeed(FakeFeed):
        late = 1

        async def replay(self, principal, execution_id, after, limit):
            page = await super().replay(principal, execution_id, after, limit)
            if self.late:
                self.late -= 1
                self.record("e")
            return page

    feed = LateFeed()
    async with connected(make_endpoint(feed)) as client:
        assert (await subscribe(client, since=0))["last_seq"] == 0
        assert await hear_numbers(client, 1) == [1]


async def test_an_invisible_execution_looks_like_an_unknown_one():
    """Nothing is revealed."""
    feed = FakeFeed()
    feed.record("e")
    feed.hidden.add("e")
    async with connected(make_endpoint(feed)) as client:
        assert (await subscribe(client, since=0))["last_seq"] == 0
        feed.record("e")
        await client.say({"type": "unsubscribe", "channel": CHANNEL})
        assert await client.hear() == {"type": "unsubscribed", "channel": CHANNEL}


async def test_without_since_only_live_events_arrive():
    """Stored events stay where they are."""
    feed = FakeFeed()
    feed.record("e")
    async with connected(make_endpoint(feed)) as client:
        assert await subscribe(client) == {"type": "subscribed", "channel": CHANNEL}
        feed.record("e")
        assert await hear_numbers(client, 1) == [2]


async def test_a_second_frame_with_since_starts_again():
    """A client that lost its place asks for it."""
    feed = FakeFeed()
    for _ in range(3):
        feed.record("e")
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client, since=0)
        assert await hear_numbers(client, 3) == [1, 2, 3]
        assert (await subscribe(client, since=1))["last_seq"] == 3
        assert await hear_numbers(client, 2) == [2, 3]


async def test_a_second_frame_without_since_changes_nothing():
    """The replay under way goes on."""
    feed = FakeFeed()
    for _ in range(60):
        feed.record("e")
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client, since=0)
        await client.say({"type": "subscribe", "channel": CHANNEL})
        heard = [await client.hear() for _ in range(61)]
        assert [frame["seq"] for frame in heard if "seq" in frame] == list(range(1, 61))


async def test_unsubscribe_stops_the_replay():
    """Nothing of the channel follows the answer."""
    feed = FakeFeed()
    for _ in range(500):
        feed.record("e")
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client, since=0)
        await client.say({"type": "unsubscribe", "channel": CHANNEL})
        heard = []
        while (frame := await client.hear())["type"] != "unsubscribed":
            heard.append(frame["seq"])
        assert heard == list(range(1, len(heard) + 1))
        assert len(heard) <= 101
        await client.say({"type": "subscribe", "channel": "epic:1"})
        assert (await client.hear())["type"] == "subscribed"


async def test_a_replay_larger_than_the_slow_consumer_limit_is_no_reason_to_close():
    """Stored events wait in the store, not in the outbox."""
    feed = FakeFeed()
    for _ in range(1500):
        feed.record("e")
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client, since=0)
        await trio.testing.wait_all_tasks_blocked()
        assert await hear_numbers(client, 1500) == list(range(1, 1501))


async def test_pieces_of_text_are_left_out_during_a_replay():
    """They would come before the events they belong after."""
    feed = FakeFeed()
    feed.record("e")

    async def publish_meanwhile():
        feed.publish(make_event(CHANNEL, "chat_delta", text="early"))
        await trio.lowlevel.checkpoint()

    feed.before_replay = publish_meanwhile
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client, since=0)
        assert await hear_numbers(client, 1) == [1]
        await trio.testing.wait_all_tasks_blocked()
        feed.publish(make_event(CHANNEL, "chat_delta", text="live"))
        assert (await client.hear())["data"] == {"text": "live"}


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(0, 120),
    since=st.integers(0, 130),
    bursts=st.lists(st.integers(0, 70), max_size=6),
    seed=st.integers(0, 1000),
)
def test_replay_and_live_join_without_gap_or_duplicate(before, since, bursts, seed):
    """Whatever is published while the store is read."""

    async def main():
        feed, dice, waiting = FakeFeed(), random.Random(seed), list(bursts)
        for _ in range(before):
            feed.record("e")

        async def interleave():
            for _ in range(dice.randrange(4)):
                await trio.lowlevel.checkpoint()
            for _ in range(waiting.pop() if waiting else 0):
                feed.record("e")
            await trio.lowlevel.checkpoint()

        feed.before_replay = interleave
        async with connected(make_endpoint(feed)) as client:
            answer = await subscribe(client, since=since)
            first = min(since, answer["last_seq"])
            with trio.move_on_after(1):
                while waiting:
                    waiting.append(waiting.pop())
                    await interleave()
            feed.record("e", "execution_completed")
            expected = list(range(first + 1, len(feed.stored["e"]) + 1))
            assert await hear_numbers(client, len(expected)) == expected
            await trio.testing.wait_all_tasks_blocked()
            await client.say({"type": "unsubscribe", "channel": CHANNEL})
            assert (await client.hear())["type"] == "unsubscribed"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_an_event_that_the_hub_lost_is_read_when_the_next_one_comes():
    """A jump of the number says that something is missing."""
    feed = FakeFeed()
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client, since=0)
        feed.record("e")
        assert await hear_numbers(client, 1) == [1]
        feed.lose("e")
        feed.record("e")
        assert await hear_numbers(client, 2) == [2, 3]


async def test_a_lost_end_is_read_when_the_hub_is_back():
    """No next event would come."""
    feed = FakeFeed()
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client, since=0)
        feed.record("e")
        assert await hear_numbers(client, 1) == [1]
        feed.lose("e", "execution_completed")
        feed.restart()
        assert await hear_numbers(client, 1) == [2]


async def test_an_event_lost_during_a_replay_is_read_by_it():
    """The page that is being read may be older than the loss."""

    class LossyFeed(FakeFeed):
        losses = 1

        async def replay(self, principal, execution_id, after, limit):
            page = await super().replay(principal, execution_id, after, limit)
            if self.losses:
                self.losses -= 1
                self.lose("e", "execution_completed")
                self.restart()
            return page

    feed = LossyFeed()
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client, since=0)
        assert await hear_numbers(client, 1) == [1]


async def test_who_asked_for_live_events_only_gets_no_others():
    """A subscription without `since` says nothing about the past."""
    feed = FakeFeed()
    async with connected(make_endpoint(feed)) as client:
        await subscribe(client)
        feed.record("e")
        feed.lose("e")
        feed.restart()
        feed.record("e")
        assert await hear_numbers(client, 2) == [1, 3]

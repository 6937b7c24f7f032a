"""What waits for one socket: bounded, ordered, text pieces dropped first."""

import pytest

from pipelit.web.ws.outbox import SLOW_CONSUMER, Close, Outbox
from tests.kit.feed import make_event

STOP = Close(1001, "stop")


def event(n, kind="node_status"):
    return make_event("execution:e", kind, seq=n)


def delta(text="x"):
    return make_event("execution:e", "chat_delta", text=text)


async def test_1000_events_may_wait_and_one_more_closes():
    """The limit itself is allowed."""
    outbox = Outbox()
    for n in range(1000):
        outbox.put_live(event(n))
    assert outbox.closing is None
    outbox.put_live(event(1000))
    assert await outbox.take() == SLOW_CONSUMER


async def test_4_mib_may_wait_and_more_closes():
    """Few large events are as bad as many small ones."""
    outbox = Outbox()
    large = make_event("execution:e", "node_status", seq=1, text="x" * 1_000_000)
    for _ in range(4):
        outbox.put_live(large)
    assert outbox.closing is None
    outbox.put_live(large)
    assert outbox.closing == SLOW_CONSUMER


async def test_pieces_of_text_are_dropped_before_the_socket():
    """Events that are stored keep their order and place."""
    outbox = Outbox()
    for n in range(500):
        outbox.put_live(event(n))
        outbox.put_live(delta())
    outbox.put_live(event(500))
    assert outbox.closing is None
    taken = [await outbox.take() for _ in range(501)]
    assert taken == [event(n).json for n in range(501)]


async def test_a_flood_of_pieces_never_closes_the_socket():
    """They can all be made up for by the message that follows them."""
    outbox = Outbox()
    for _ in range(5000):
        outbox.put_live(delta())
    assert outbox.closing is None


async def test_answers_keep_their_place_when_pieces_are_dropped():
    """An answer says which events come after it."""
    outbox = Outbox()
    outbox.put_live(event(1))
    outbox.put_answer(b"answer")
    for _ in range(1000):
        outbox.put_live(delta())
    outbox.put_live(event(2))
    assert [await outbox.take() for _ in range(3)] == [event(1).json, b"answer", event(2).json]


async def test_the_first_reason_to_close_stays():
    """And nothing is sent after it."""
    outbox = Outbox()
    outbox.put_live(event(1))
    outbox.close(STOP)
    outbox.close(SLOW_CONSUMER)
    outbox.put_live(event(2))
    outbox.put_answer(b"answer")
    assert await outbox.take() == STOP
    assert await outbox.take() == STOP


@pytest.mark.parametrize("count", [1, 3])
async def test_a_batch_ends_before_an_answer(count):
    """Answers are single objects, also between events."""
    outbox = Outbox()
    outbox.put_batch_switch(enabled=True)
    await outbox.take()
    for n in range(count):
        outbox.put_live(event(n))
    outbox.put_answer(b"answer")
    outbox.put_live(event(9))
    joined = b"[" + b",".join(event(n).json for n in range(count)) + b"]"
    assert [await outbox.take() for _ in range(3)] == [
        joined,
        b"answer",
        b"[" + event(9).json + b"]",
    ]


async def test_one_event_of_any_size_may_wait():
    """Only a client that lets something else wait behind it is slow."""
    outbox = Outbox()
    huge = make_event("execution:e", "node_status", seq=1, text="x" * 5_000_000)
    outbox.put_live(huge)
    assert await outbox.take() == huge.json
    outbox.put_live(huge)
    outbox.put_live(event(2))
    assert outbox.closing == SLOW_CONSUMER

"""Following an execution over a real socket: nothing missed, nothing twice."""

import json

import pytest
import trio

from pipelit.cli.client import ServerRefusedError, Target, UnreachableError
from pipelit.cli.events import Lost, Restored, backoff, follow
from tests.cli.fake_server import COMPLETED_RUN, RUN_ID, serving


async def collect(target: Target) -> list[object]:
    with trio.fail_after(10):
        async with follow(target, RUN_ID) as items:
            return [
                item if isinstance(item, Lost | Restored) else item["seq"] async for item in items
            ]


async def test_following_ends_with_the_terminal_event() -> None:
    """Stored events come first; pings are answered on the way."""
    async with serving() as server:
        server.play(*COMPLETED_RUN[:3], {"type": "ping"}, *COMPLETED_RUN[3:])

        assert await collect(server.target) == [1, 2, 3, 4, 5, 6]


async def test_a_lost_connection_goes_on_after_the_last_event_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second subscription asks for what comes after the third event; nothing comes twice."""
    monkeypatch.setattr("pipelit.cli.events.backoff", lambda: iter([0.01]))
    async with serving() as server:
        server.play(*COMPLETED_RUN[:3])
        server.play(*COMPLETED_RUN)

        seen = await collect(server.target)

    assert seen == [1, 2, 3, Lost(0.01), Restored(), 4, 5, 6]
    assert server.subscriptions == [0, 3]


async def test_a_jump_of_numbers_is_asked_for_again() -> None:
    """A server may drop live events for a slow reader; they are stored."""
    async with serving() as server:
        server.subscriptions_per_socket = 2
        server.play(COMPLETED_RUN[0], COMPLETED_RUN[2], COMPLETED_RUN[3])
        server.play(*COMPLETED_RUN)

        seen = await collect(server.target)

    assert seen == [1, 2, 3, 4, 5, 6]
    assert server.subscriptions == [0, 1]


async def test_a_wrong_key_is_a_refusal() -> None:
    """Nobody waits for a server that will not talk."""
    async with serving() as server:
        with pytest.RaisesGroup(ServerRefusedError, flatten_subgroups=True) as caught:
            await collect(Target(url=server.url, key="wrong"))

    assert "Invalid or missing token" in str(caught.value.exceptions[0])


async def test_an_event_too_big_to_be_shown_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be as big after every further attempt."""
    monkeypatch.setattr("pipelit.cli.events._MAX_FRAME", 1024 * 1024)
    async with serving() as server:
        server.play(COMPLETED_RUN[0] | {"data": {"text": "x" * 1_100_000}})
        with pytest.RaisesGroup(ServerRefusedError, flatten_subgroups=True) as caught:
            await collect(server.target)

    assert "larger than the 1 MiB" in str(caught.value.exceptions[0])


async def test_no_server_at_first_is_unreachable() -> None:
    """Only a connection that once stood is tried again."""
    with pytest.RaisesGroup(UnreachableError, flatten_subgroups=True):
        await collect(Target(url="http://127.0.0.1:9", key="k"))


async def test_a_viewer_may_leave_at_any_time() -> None:
    """Leaving the block closes the connection."""
    async with serving() as server:
        server.play(*COMPLETED_RUN)
        with trio.fail_after(5):
            async with follow(server.target, RUN_ID) as items:
                first = await items.receive()

    assert json.dumps(first)


def test_delays_are_short_for_half_a_minute_and_then_double_up_to_thirty_seconds() -> None:
    """A server that is started again is seen at once; later the contract's rule holds."""
    delays = backoff()
    taken = [next(delays) for _ in range(20)]

    assert taken[:3] == [1, 2, 2]
    assert sum(taken[:16]) == 31
    assert taken[16:] == [4, 8, 16, 30]

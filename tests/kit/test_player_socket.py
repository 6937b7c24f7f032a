"""The player's WebSocket client, against a real socket."""

import json
from functools import partial

import pytest
import trio
from trio_websocket import WebSocketRequest, serve_websocket

from tests.kit.matching import Mismatch
from tests.kit.player import live_socket


async def talk(request: WebSocketRequest) -> None:
    connection = await request.accept()
    await connection.send_message('{"type": "ping"}')
    assert json.loads(await connection.get_message()) == {"type": "pong"}
    for channel, n in (("a", 1), ("b", 2), ("a", 3)):
        await connection.send_message(json.dumps({"channel": channel, "n": n}))
    assert json.loads(await connection.get_message())["type"] == "unsubscribe"
    await connection.send_message('{"type": "unsubscribed", "channel": "nothing"}')
    await connection.aclose(1001, "Server shutting down")


async def test_frames_are_sorted_by_channel_and_pings_answered(nursery: trio.Nursery) -> None:
    """What nobody took is found, and so is the reason of the close."""
    start = partial(serve_websocket, talk, "127.0.0.1", 0, ssl_context=None)
    server = await nursery.start(start)

    async with live_socket(f"ws://127.0.0.1:{server.port}/ws/") as socket:
        assert await socket.receive("b") == {"channel": "b", "n": 2}
        assert await socket.receive("a") == {"channel": "a", "n": 1}
        await socket.settle()
        with pytest.raises(Mismatch, match="1 frames too many"):
            socket.require_nothing_left()
        assert await socket.wait_closed() == (1001, "Server shutting down")
        with pytest.raises(Mismatch, match="socket closed"):
            await socket.receive("b")
    nursery.cancel_scope.cancel()

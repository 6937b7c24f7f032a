"""A WebSocket client that shows every frame as it comes, for tests about the frames."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

PATIENCE = 10.0


class WsClient:
    """One socket. Pings are not answered, and are frames like any other."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection

    async def say(self, frame: object) -> None:
        """Send a frame: text as it is, anything else as JSON."""
        await self.connection.send_message(frame if isinstance(frame, str) else json.dumps(frame))

    async def hear(self) -> Any:
        """Return the next frame."""
        with trio.fail_after(PATIENCE):
            return json.loads(await self.connection.get_message())

    async def ask(self, **frame: object) -> Any:
        """Send a frame and return the next one."""
        await self.say(frame)
        return await self.hear()

    async def subscribe(self, channel: str, **more: object) -> Any:
        """Subscribe and return the answer."""
        answer = await self.ask(type="subscribe", channel=channel, **more)
        assert answer["type"] == "subscribed"
        return answer

    async def hear_until(self, kind: str, **data: object) -> list[Any]:
        """Return frames up to the first of a type whose data has all of *data*."""
        frames = []
        while True:
            frames.append(await self.hear())
            if frames[-1]["type"] == kind and data.items() <= frames[-1].get("data", {}).items():
                return frames

    async def hear_rest(self) -> list[Any]:
        """Return what the server has to say before it answers one more question."""
        await self.say({"type": "unsubscribe", "channel": "nothing"})
        return (await self.hear_until("unsubscribed"))[:-1]

    async def hear_close(self) -> tuple[int, str | None]:
        """Return how the server closes, and pass over what it says before."""
        with trio.fail_after(PATIENCE), suppress(ConnectionClosed):
            while True:
                await self.connection.get_message()
        reason = self.connection.closed
        assert reason is not None
        return reason.code, reason.reason


@asynccontextmanager
async def ws_client(
    url: str,
    path: str = "/ws/",
    *,
    token: str | None = None,
    bearer: str | None = None,
    origin: str | None = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[WsClient]:
    """Connect to the server at *url*."""
    host, _, port = url.removeprefix("http://").partition(":")
    raw = trio.socket.socket()
    if receive_buffer is not None:
        raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    await raw.connect((host, int(port)))
    headers = [] if bearer is None else [("Authorization", f"Bearer {bearer}")]
    headers += [] if origin is None else [("Origin", origin)]
    resource = path if token is None else f"{path}?token={token}"
    async with trio.SocketStream(raw) as stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(
            nursery, stream, f"{host}:{port}", resource, extra_headers=headers
        )
        yield WsClient(connection)
        with trio.move_on_after(1):
            await connection.aclose()
        nursery.cancel_scope.cancel()

"""A WebSocket without a network: drives an endpoint through the server's interface.

For tests about time and order. What a real peer sees is tested over a real socket.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from pipelit.web.request import Head
from pipelit.web.ws.endpoint import SocketEndpoint


class FakeClient:
    """The other end. A client that does not read blocks the server's sends."""

    def __init__(self) -> None:
        self._to_server, self._from_client = trio.open_memory_channel[dict](10)
        self._to_client, self._from_server = trio.open_memory_channel[dict](0)

    async def receive(self) -> dict:
        return await self._from_client.receive()

    async def send(self, message: dict) -> None:
        await self._to_client.send(message)

    async def connect(self) -> None:
        """Shake hands."""
        await self._to_server.send({"type": "websocket.connect"})
        assert (await self._from_server.receive())["type"] == "websocket.accept"

    async def say(self, frame: object) -> None:
        """Send a frame."""
        await self._to_server.send({"type": "websocket.receive", "text": json.dumps(frame)})

    async def hear(self) -> object:
        """Return the next frame, or the server's close as (code, reason)."""
        message = await self._from_server.receive()
        if message["type"] == "websocket.close":
            return message["code"], message["reason"]
        return json.loads(message["text"])

    async def leave(self) -> None:
        """Hang up."""
        await self._to_server.send({"type": "websocket.disconnect", "code": 1006})


@asynccontextmanager
async def connected(endpoint: SocketEndpoint, key: str = "ada-key") -> AsyncIterator[FakeClient]:
    """Run *endpoint* for one client."""
    head = Head(method="GET", raw_path="/ws/", query={"token": key}, headers={}, peer="127.0.0.1")
    client = FakeClient()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint, head, client.receive, client.send)
        await client.connect()
        yield client
        nursery.cancel_scope.cancel()

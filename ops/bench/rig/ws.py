"""A WebSocket client that reads frames from a plain socket: it costs next to nothing per event."""

import json
import os
import struct
from collections.abc import AsyncIterator
from typing import Any, Self

import trio


class Socket:
    """One socket of one user. Server frames are short text frames; pings of the frame layer too."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @classmethod
    async def open(cls, port: int, key: str) -> Self:
        """Connect and upgrade."""
        socket = cls(await trio.open_tcp_stream("127.0.0.1", port))
        await socket._stream.send_all(
            (
                f"GET /ws/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                f"Authorization: Bearer {key}\r\n\r\n"
            ).encode()
        )
        while (end := socket._buffer.find(b"\r\n\r\n")) < 0:
            await socket._more()
        del socket._buffer[: end + 4]
        return socket

    async def aclose(self) -> None:
        """Close the connection without a farewell."""
        await trio.aclose_forcefully(self._stream)

    async def say(self, **frame: object) -> None:
        """Send one frame."""
        body, mask = json.dumps(frame).encode(), os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))
        size = bytes([0x80 | len(body)]) if len(body) < 126 else struct.pack("!BH", 0xFE, len(body))
        await self._stream.send_all(b"\x81" + size + mask + masked)

    async def subscribe(self, channel: str) -> None:
        """Subscribe and wait for the answer."""
        await self.say(type="subscribe", channel=channel)
        await anext(self.frames())

    async def batch(self) -> None:
        """Have waiting events come together in one frame."""
        await self.say(type="batch", enabled=True)
        await anext(self.frames())

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the text of frame after frame, without end."""
        while True:
            frame = self._take()
            if frame is None:
                await self._more()
            else:
                yield frame

    async def events(self) -> AsyncIterator[Any]:
        """Yield event after event, single or batched."""
        async for frame in self.frames():
            found = json.loads(frame)
            for event in found if isinstance(found, list) else [found]:
                yield event

    def _take(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size == 126:
            size, start = int.from_bytes(buffer[2:4]), 4
        elif size == 127:
            size, start = int.from_bytes(buffer[2:10]), 10
        if len(buffer) < max(start + size, 10 if buffer[1] == 127 else 0):
            return None
        frame = bytes(buffer[start : start + size])
        del buffer[: start + size]
        return frame

    async def _more(self) -> None:
        received = await self._stream.receive_some(1 << 20)
        if not received:
            raise ConnectionError("the server closed the socket")
        self._buffer += received

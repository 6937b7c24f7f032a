"""The cheapest HTTP client that is still right about this server: one request at a time."""

import json
from typing import Any, Self

import trio

PATIENCE = 60.0
"""Seconds until an answer counts as missing."""


class Refused(Exception):
    """The server answered with an error."""


class Connection:
    """One keep-alive connection of one user."""

    def __init__(self, stream: trio.SocketStream, key: str) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._key = key

    @classmethod
    async def open(cls, port: int, key: str = "") -> Self:
        """Connect to the server on this machine."""
        return cls(await trio.open_tcp_stream("127.0.0.1", port), key)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Send one request and return the JSON of its answer.

        Raises:
            Refused: the status is 400 or more.
        """
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        with trio.fail_after(PATIENCE):
            await self._stream.send_all(head.encode() + content)
            status, answer = await self._receive()
        if status >= 400:
            raise Refused(f"{method} {path}: {status} {answer[:200]!r}")
        return json.loads(answer) if answer else None

    async def post(self, path: str, body: object = None) -> Any:
        """Send a POST below `/api/v1`."""
        return await self.call("POST", f"/api/v1{path}", {} if body is None else body)

    async def get(self, path: str) -> Any:
        """Send a GET below `/api/v1`."""
        return await self.call("GET", f"/api/v1{path}")

    async def _receive(self) -> tuple[int, bytes]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._more()
        head = bytes(self._buffer[:end]).lower()
        del self._buffer[: end + 4]
        length = 0
        for line in head.split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(self._buffer) < length:
            await self._more()
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return int(head[9:12]), body

    async def _more(self) -> None:
        received = await self._stream.receive_some(65536)
        if not received:
            raise Refused("the server closed the connection")
        self._buffer += received

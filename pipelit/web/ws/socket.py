"""The server's WebSocket events as plain calls: accept, receive, send, close."""

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

from pipelit.web.encode import encode


class Socket:
    """One WebSocket. One task receives, one sends."""

    def __init__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._receive = receive
        self._send = send
        self._gone = trio.Event()
        self.is_closing = False
        """We have sent our close frame."""
        self.last_activity = trio.current_time()
        """Trio time of the last frame in either direction."""

    async def accept(self) -> None:
        """Complete the upgrade."""
        await self._receive()  # "websocket.connect", always the first
        await self._send({"type": "websocket.accept", "subprotocol": None, "headers": []})

    async def reject_path(self) -> None:
        """Answer 404 instead of upgrading: no endpoint is here."""
        await self._receive()
        body = encode({"detail": "Not Found"})
        await self._send(
            {
                "type": "websocket.http.response.start",
                "status": 404,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                ],
            }
        )
        await self._send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    async def receive(self) -> str | bytes | None:
        """Return the client's next message; None when it has gone."""
        while not self._gone.is_set():
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._gone.set()
            elif message["type"] == "websocket.receive":
                self.last_activity = trio.current_time()
                text = message.get("text")
                return text if text is not None else message.get("bytes") or b""
        return None

    async def send_text(self, text: str) -> None:
        """Send one text frame; to a client that has gone, nothing happens."""
        await self._send({"type": "websocket.send", "bytes": None, "text": text})
        self.last_activity = trio.current_time()
        # A send on a closed stream returns at once: without this a loop around it would never
        # let another task run.
        await trio.lowlevel.checkpoint()

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame, once."""
        if not self.is_closing and not self._gone.is_set():
            self.is_closing = True
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def wait_gone(self) -> None:
        """Wait until the task that receives has seen the client go."""
        await self._gone.wait()

    async def drain(self) -> None:
        """Receive and discard until the client has gone."""
        while await self.receive() is not None:
            pass

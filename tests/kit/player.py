"""Plays a transcript against a server: its HTTP requests, its sockets, its model provider."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.kit.matching import Matcher, Mismatch
from tests.kit.model_server import ModelCall, ModelServer
from tests.kit.transcript import (
    EventStream,
    Exchange,
    ProviderAnswer,
    ProviderCall,
    Received,
    Sent,
    Step,
)

PATIENCE = 10.0
"""Seconds until something that is due counts as missing."""


class Socket(Protocol):
    """A client's WebSocket."""

    async def send(self, frame: dict[str, Any]) -> None:
        """Send a frame."""
        ...

    async def receive(self, channel: str) -> Any:
        """Return the next frame of *channel* that was not returned yet."""
        ...


class LiveSocket:
    """A real WebSocket: answers pings and sorts frames by channel."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._frames: dict[str, list[Any]] = defaultdict(list)
        self._changed = trio.Event()
        self.close: tuple[int, str | None] | None = None

    async def run(self) -> None:
        """Read until the server closes."""
        try:
            while True:
                frame = json.loads(await self._connection.get_message())
                if frame == {"type": "ping"}:
                    await self.send({"type": "pong"})
                    continue
                self._frames[frame["channel"]].append(frame)
                self._notify()
        except ConnectionClosed as closed:
            if closed.reason is not None:
                self.close = (closed.reason.code, closed.reason.reason)
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def send(self, frame: dict[str, Any]) -> None:
        await self._connection.send_message(json.dumps(frame))

    async def receive(self, channel: str) -> Any:
        try:
            with trio.fail_after(PATIENCE):
                while not self._frames[channel]:
                    if self.close is not None:
                        raise Mismatch(f"socket closed {self.close}, a frame of {channel} was due")
                    await self._changed.wait()
        except trio.TooSlowError:
            raise Mismatch(f"a frame of {channel} is missing") from None
        return self._frames[channel].pop(0)

    async def settle(self) -> None:
        """Wait until everything the server sent so far has arrived."""
        await self.send({"type": "unsubscribe", "channel": "nothing"})
        await self.receive("nothing")

    def require_nothing_left(self) -> None:
        """Fail if a frame came that nobody expected."""
        left = [frame for frames in self._frames.values() for frame in frames]
        if left:
            raise Mismatch(f"{len(left)} frames too many, the first: {left[0]!r}")

    async def wait_closed(self) -> tuple[int, str | None]:
        with trio.fail_after(PATIENCE):
            while self.close is None:
                await self._changed.wait()
        return self.close


@asynccontextmanager
async def live_socket(url: str) -> AsyncIterator[LiveSocket]:
    """Open a WebSocket. The TCP stream is ours, so it is closed whoever closes first."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    async with await trio.open_tcp_stream(host, port) as stream, trio.open_nursery() as nursery:
        resource = f"{parts.path}?{parts.query}"
        connection = await wrap_client_stream(nursery, stream, f"{host}:{port}", resource)
        socket = LiveSocket(connection)
        nursery.start_soon(socket.run)
        yield socket
        with trio.move_on_after(1):
            await connection.aclose()
        nursery.cancel_scope.cancel()


class Player:
    """Walks through steps and compares. `socket` is the one frames go over; the test sets it."""

    def __init__(self, http: httpx2.AsyncClient, provider: ModelServer) -> None:
        self.matcher = Matcher()
        self.socket: Socket | None = None
        self.calls: list[ModelCall] = []
        self._http = http
        self._provider = provider

    async def play(self, steps: Sequence[Step]) -> None:
        """Play *steps* in order.

        Raises:
            Mismatch: the server does not do what the transcript says.
        """
        rest = list(steps)
        while rest:
            step = rest.pop(0)
            where = f"first-run.md:{step.line}"
            match step:
                case Exchange():
                    await self.exchange(step)
                case EventStream():
                    await self.event_stream(step)
                case Sent():
                    await self._socket().send(self.matcher.fill_in(step.frame))
                case Received() if step.frame["type"] == "chat_delta":
                    group = [step]
                    while isinstance(rest[0], Received) and rest[0].frame["type"] == "chat_delta":
                        group.append(rest.pop(0))
                    await self._deltas(group, where)
                case Received():
                    await self._receive(step.frame, where)
                case ProviderCall():
                    await self._provider_call(step, where)
                case ProviderAnswer():
                    await self.calls[-1].stream([_filled_up(chunk) for chunk in step.chunks])

    async def exchange(self, step: Exchange) -> Any:
        """Send a request, compare the answer, and return its body."""
        where = f"first-run.md:{step.line}: {step.method} {step.path}"
        reply = await self.request(step.method, step.path, step.headers, step.body)
        _status(step.status, reply, where)
        self._headers(step.answer_headers, reply, where)
        if "application/json" not in reply.headers.get("content-type", ""):
            raise Mismatch(f"{where}: content type {reply.headers.get('content-type')}")
        self.matcher.match(step.answer, reply.json(), where)
        return reply.json()

    async def event_stream(self, step: EventStream) -> None:
        """Read a stream of server-sent events to its end and compare."""
        where = f"first-run.md:{step.line}: GET {step.path}"
        reply = await self.request("GET", step.path, step.headers, None)
        _status(step.status, reply, where)
        self._headers(step.answer_headers, reply, where)
        events = [_sse(part, where) for part in reply.text.split("\n\n") if part.strip()]
        if not reply.text.endswith("\n\n") or len(events) != len(step.events):
            raise Mismatch(f"{where}: not {len(step.events)} complete events: {reply.text!r}")
        for (said_id, said), (real_id, real) in zip(step.events, events, strict=True):
            self.matcher.match(said_id, real_id, where)
            self.matcher.match(said, real, where)

    async def request(
        self, method: str, path: str, headers: dict[str, str], body: Any
    ) -> httpx2.Response:
        """Send a request, with the key once there is one."""
        key = self.matcher.key()
        known = {"Authorization": f"Bearer {key}"} if key else {}
        content = {} if body is None else {"json": self.matcher.fill_in(body)}
        with trio.fail_after(PATIENCE):
            return await self._http.request(
                method, self.matcher.fill_in(path), headers={**known, **headers}, **content
            )

    def _headers(self, said: dict[str, str], reply: httpx2.Response, where: str) -> None:
        if not reply.headers.get("x-request-id"):
            raise Mismatch(f"{where}: no X-Request-ID")
        if "Idempotent-Replayed" not in said and "idempotent-replayed" in reply.headers:
            raise Mismatch(f"{where}: an answer that is no repeat says it is")
        for name, value in said.items():
            real = reply.headers.get(name, "").partition(";")[0]
            if real != value:
                raise Mismatch(f"{where}: header {name}: expected {value!r}, got {real!r}")

    def _socket(self) -> Socket:
        if self.socket is None:
            raise Mismatch("no socket is open")
        return self.socket

    async def _receive(self, said: dict[str, Any], where: str) -> None:
        real = await self._socket().receive(self.matcher.fill_in(said["channel"]))
        self.matcher.match(said, real, where)

    async def _deltas(self, group: list[Received], where: str) -> None:
        """Compare pieces of text, which may arrive joined."""
        text = "".join(step.frame["data"]["text"] for step in group)
        channel = self.matcher.fill_in(group[0].frame["channel"])
        heard, index = "", 0
        while len(heard) < len(text):
            real = await self._socket().receive(channel)
            piece = real.get("data", {}).get("text")
            if real.get("type") != "chat_delta" or not isinstance(piece, str) or not piece:
                raise Mismatch(f"{where}: a piece of text is missing, got {real!r}")
            said = json.loads(json.dumps(group[0].frame))
            said["data"] |= {"text": piece, "index": index}
            self.matcher.match(said, real, where)
            heard, index = heard + piece, index + 1
        if heard != text:
            raise Mismatch(f"{where}: pieces add up to {heard!r}, not {text!r}")

    async def _provider_call(self, step: ProviderCall, where: str) -> None:
        said = step.body
        if said is None:
            before = self.calls[-1].body
            said = before | {"messages": [*before["messages"], *step.added]}
        call = await self.next_call(where)
        self.matcher.match_call(said, call.body, where)

    async def next_call(self, where: str) -> ModelCall:
        """Wait for the provider's next call; it stays unanswered until a step answers it."""
        try:
            call = await self._provider.next_call()
        except trio.TooSlowError:
            raise Mismatch(f"{where}: the provider got no call") from None
        self.calls.append(call)
        return call


def _filled_up(chunk: dict[str, Any]) -> dict[str, Any]:
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1772442300}
    return envelope | {"model": "demo-1"} | chunk


def _status(said: int, reply: httpx2.Response, where: str) -> None:
    if reply.status_code != said:
        raise Mismatch(f"{where}: expected {said}, got {reply.status_code}: {reply.text[:500]}")


def _sse(part: str, where: str) -> tuple[str, Any]:
    lines = part.splitlines()
    fields = [line.split(": ", 1) for line in lines if not line.startswith(":")]
    if [entry[0] for entry in fields] != ["id", "data"]:
        raise Mismatch(f"{where}: not an event with id and data: {part!r}")
    return fields[0][1], json.loads(fields[1][1])

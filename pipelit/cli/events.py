"""Events of one execution over the WebSocket, without gaps also over a reconnect.

Contract: websocket.md "Sequence and replay".
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import msgspec
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from pipelit.cli.client import ServerRefusedError, Target, UnreachableError
from pipelit.cli.running import leaves

Event: TypeAlias = dict[str, Any]

TERMINAL = frozenset({"execution_completed", "execution_failed", "execution_cancelled"})
SILENCE_SECONDS = 45.0
"""The server pings after 30 s without a frame; a socket silent for longer is dead."""

CONNECT_SECONDS = 10.0
GIVE_UP_SECONDS = 300.0
EAGER_SECONDS, EAGER_DELAY, PATIENT_DELAY = 30.0, 2.0, 30.0
_MAX_FRAME = 64 * 1024 * 1024
_TOO_BIG = 1009  # the code of a close, here our own
_LOST = (ConnectionClosed, HandshakeError, OSError, trio.TooSlowError, trio.BrokenResourceError)


class Lost(msgspec.Struct, frozen=True):
    """The connection broke; the next attempt comes in *delay* seconds."""

    delay: float


class Restored(msgspec.Struct, frozen=True):
    """The connection stands again; everything missed follows."""


Item: TypeAlias = Event | Lost | Restored


def backoff() -> Iterator[float]:
    """Yield the delays between attempts, in seconds: 1, 2, 2 … and after half a minute 4, 8 … 30.

    A server that is started again is back within seconds, and somebody is watching; later the rule
    for all clients holds. Contract: websocket.md "Connection".
    """
    delay, waited = 1.0, 0.0
    while True:
        yield delay
        waited += delay
        longest = PATIENT_DELAY if waited >= EAGER_SECONDS else EAGER_DELAY
        delay = min(longest, delay * 2)


@asynccontextmanager
async def follow(
    target: Target, execution_id: str, *, since: int = 0
) -> AsyncIterator[trio.MemoryReceiveChannel[Item]]:
    """Open the events of one execution: stored ones after *since*, then live ones.

    The channel ends after the terminal event. A lost connection is opened again and goes on after
    the last event seen, so nothing is missed and nothing comes twice.

    Raises:
        UnreachableError: the first attempt fails, or no attempt succeeds for 300 s.
        ServerRefusedError: the key is not, or no longer, valid.
    """
    send, receive = trio.open_memory_channel[Item](100)
    async with trio.open_nursery() as nursery:
        follower = _Follower(target, execution_id, since, send)
        nursery.start_soon(follower.run)
        async with receive:
            yield receive
        nursery.cancel_scope.cancel("viewer left")


class _Follower:
    """Owns the connection. Lives in one task."""

    def __init__(
        self, target: Target, execution_id: str, since: int, items: trio.MemorySendChannel[Item]
    ) -> None:
        self._target = target
        self._address = urlsplit(f"{target.url}/ws/")
        self._headers = [(name.encode(), value.encode()) for name, value in target.headers.items()]
        self._channel = f"execution:{execution_id}"
        self._seen = since
        self._items = items
        self._subscribed_once = False
        self._awaits_answer = False
        self._delays = backoff()
        self._waited = 0.0  # seconds since the connection last stood

    async def run(self) -> None:
        async with self._items:
            told = 0.0
            while not await self._connect_once():
                delay = next(self._delays)
                told = told if self._waited else 0.0
                self._waited += delay
                if self._waited > GIVE_UP_SECONDS:
                    raise UnreachableError(self._target.url, "it did not come back")
                if delay != told:  # one line for each pace is enough
                    await self._items.send(Lost(delay))
                told = delay
                await trio.sleep(delay)

    async def _connect_once(self) -> bool:
        """Follow until the terminal event (True) or until the connection is lost (False)."""
        ended = False
        try:
            # The stream is ours: the WebSocket library leaves it open after a close that the
            # server began.
            async with await self._open_stream() as stream, trio.open_nursery() as nursery:
                with trio.fail_after(CONNECT_SECONDS):
                    socket = await wrap_client_stream(
                        nursery,
                        stream,
                        self._address.netloc,
                        self._address.path,
                        extra_headers=self._headers,
                        max_message_size=_MAX_FRAME,
                    )
                ended = await self._receive(socket)
                nursery.cancel_scope.cancel("the connection is done with")
        except* _LOST as group:
            self._judge(group)
        return ended

    async def _open_stream(self) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
        host, port = self._address.hostname or "localhost", self._address.port
        with trio.fail_after(CONNECT_SECONDS):
            if self._address.scheme == "https":
                return await trio.open_ssl_over_tcp_stream(host, port or 443)
            return await trio.open_tcp_stream(host, port or 80)

    def _judge(self, group: BaseExceptionGroup[BaseException]) -> None:
        """Decide whether a lost connection is worth another attempt."""
        error = next(leaves(group))
        if isinstance(error, ConnectionClosed) and error.reason and error.reason.code == 1008:
            message = f"{error.reason.reason}\nLog in again with `pipelit login`."
            raise ServerRefusedError(message, status=401)
        if isinstance(error, ConnectionClosed) and error.reason and error.reason.code == _TOO_BIG:
            message = f"An event is larger than the {_MAX_FRAME >> 20} MiB that are shown here."
            raise ServerRefusedError(message, status=413)
        if not self._subscribed_once:
            raise UnreachableError(self._target.url, str(error) or type(error).__name__)

    async def _receive(self, socket: WebSocketConnection) -> bool:
        await self._subscribe(socket)
        while True:
            with trio.fail_after(SILENCE_SECONDS):
                event = json.loads(await socket.get_message())
            match event.get("type"):
                case "ping":
                    await socket.send_message('{"type": "pong"}')
                case "subscribed":
                    await self._note_subscribed()
                case _ if event.get("channel") != self._channel:
                    continue
                case _ if event.get("seq", 0) > self._seen + 1:
                    # A busy server may drop live events; they are stored, so ask for them.
                    if not self._awaits_answer:
                        await self._subscribe(socket)
                case _ if await self._deliver(event):
                    return True

    async def _subscribe(self, socket: WebSocketConnection) -> None:
        self._awaits_answer = True
        frame = {"type": "subscribe", "channel": self._channel, "since": self._seen}
        await socket.send_message(json.dumps(frame))

    async def _note_subscribed(self) -> None:
        self._awaits_answer = False
        self._subscribed_once = True
        self._delays = backoff()
        if self._waited:
            self._waited = 0.0
            await self._items.send(Restored())

    async def _deliver(self, event: Event) -> bool:
        """Hand an event on unless it was seen before; tell whether it is the last one."""
        seq = event.get("seq")
        if isinstance(seq, int):
            if seq <= self._seen:
                return False
            self._seen = seq
        await self._items.send(event)
        return event["type"] in TERMINAL

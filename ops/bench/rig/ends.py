"""When executions end, as one socket tells it."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from rig.http import Refused
from rig.server import Server
from rig.ws import Socket

PATIENCE = 120.0
"""Seconds until an end counts as missing."""
_TERMINAL = ("execution_completed", "execution_failed", "execution_cancelled")


class Ends:
    """Tells who waits for an execution that it has ended, and when."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._ended: dict[str, tuple[float, str]] = {}
        self._waiting: dict[str, trio.Event] = {}

    @classmethod
    @asynccontextmanager
    async def listen(cls, server: Server, slugs: Sequence[str]) -> AsyncIterator["Ends"]:
        """Listen to the runs of some workflows for the length of the block."""
        socket = await Socket.open(server.port, server.key)
        await socket.batch()
        for slug in slugs:
            await socket.subscribe(f"workflow:{slug}")
        ends = cls(socket)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends._read)
            yield ends
            nursery.cancel_scope.cancel()
        await socket.aclose()

    async def wait(self, execution_id: str, *, end: str = "execution_completed") -> float:
        """Return when the run ended, on the clock of `time.perf_counter`.

        Raises:
            Refused: it ended otherwise than by *end*.
        """
        if execution_id not in self._ended:
            event = self._waiting[execution_id] = trio.Event()
            with trio.fail_after(PATIENCE):
                await event.wait()
        at, kind = self._ended.pop(execution_id)
        if kind != end:
            raise Refused(f"{execution_id}: {kind}")
        return at

    async def _read(self) -> None:
        async for event in self._socket.events():
            if event["type"] in _TERMINAL:
                execution_id = event["execution_id"]
                self._ended[execution_id] = (time.perf_counter(), event["type"])
                if execution_id in self._waiting:
                    self._waiting.pop(execution_id).set()

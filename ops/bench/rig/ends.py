"""When executions end, as one socket tells it."""

import time

import trio

from rig.ws import Socket

PATIENCE = 60.0
"""Seconds until an end counts as missing."""
_TERMINAL = ("execution_completed", "execution_failed", "execution_cancelled")


class Ends:
    """Tells who waits for an execution that it has ended, and when."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._ended: dict[str, float] = {}
        self._waiting: dict[str, trio.Event] = {}

    async def listen(self) -> None:
        """Read the ends of all runs, until cancelled."""
        async for event in self._socket.events():
            if event["type"] in _TERMINAL:
                execution_id = event["execution_id"]
                self._ended[execution_id] = time.perf_counter()
                if execution_id in self._waiting:
                    self._waiting.pop(execution_id).set()

    async def wait(self, execution_id: str) -> float:
        """Return when the run ended, on the clock of `time.perf_counter`."""
        if execution_id not in self._ended:
            event = self._waiting[execution_id] = trio.Event()
            with trio.fail_after(PATIENCE):
                await event.wait()
        return self._ended.pop(execution_id)

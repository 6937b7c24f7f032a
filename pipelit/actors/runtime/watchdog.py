"""Who holds the loop, and who does not go: a Trio instrument and a small task.

Nothing inside a single thread can see code that *never* yields; it is reported when it does yield.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from pipelit.actors.runtime.envelope import Turn, current_turn

if TYPE_CHECKING:
    from pipelit.actors.runtime.directory import Directory
    from pipelit.actors.runtime.lifecycle import Cell

LATE_LOOP = 0.1
SLOW_TURN = 1.0
STUCK_AFTER = 5.0
_LAGS_KEPT = 2_000


class LoopWatch(trio.abc.Instrument):
    """Reports a step that makes the loop late, and a turn that computes too long."""

    def __init__(
        self,
        directory: "Directory",
        clock: Callable[[], float],
        on_lag: Callable[[float], object] | None = None,
    ) -> None:
        """Watch with *clock*, real seconds that never go back; *on_lag* hears of every round."""
        self._on_lag = on_lag
        self._directory = directory
        self._clock = clock
        self._step_began = clock()  # the step that adds this instrument is under way
        self._round_began: float | None = None
        self._lags: deque[float] = deque(maxlen=_LAGS_KEPT)

    def lag(self, share: float) -> float:
        """Return the loop lag, in seconds, that this *share* of recent rounds did not exceed."""
        lags = sorted(self._lags)
        return lags[min(len(lags) - 1, int(len(lags) * share))] if lags else 0.0

    def after_io_wait(self, timeout: float) -> None:
        """Begin a round of the loop."""
        self._round_began = self._clock()

    def before_io_wait(self, timeout: float) -> None:
        """End a round: whoever became ready meanwhile has waited so long."""
        if self._round_began is not None:
            lag = self._clock() - self._round_began
            self._lags.append(lag)
            if self._on_lag is not None:
                self._on_lag(lag)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Begin to time one step of one task."""
        self._step_began = self._clock()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Add the step to its turn, and report what took too long."""
        elapsed = self._clock() - self._step_began
        turn = task.context.get(current_turn)
        if elapsed > LATE_LOOP:
            self._report(turn, elapsed)
        elif turn is not None and turn.holds:
            turn.busy += elapsed
            if turn.busy > SLOW_TURN and not turn.reported:
                turn.reported = True
                self._report(turn, turn.busy)

    def _report(self, turn: Turn | None, elapsed: float) -> None:
        detail = {
            "message_type": None if turn is None else turn.message_type,
            "elapsed_ms": round(elapsed * 1000),
        }
        source = self._directory.source("/" if turn is None else turn.path)
        self._directory.bus.emit("slow_handler", source, detail)


class StuckWatch:
    """Reports actors that were cancelled five seconds ago and still run."""

    def __init__(self) -> None:
        self._due: dict[Cell, float] = {}
        self._news = trio.lowlevel.ParkingLot()

    def expect_end(self, cell: "Cell", at: float) -> None:
        """Expect *cell* to be gone at *at*, on the Trio clock."""
        if at < self._due.get(cell, float("inf")):
            self._due[cell] = at
            self._news.unpark_all()

    def forget(self, cell: "Cell") -> None:
        """Note that *cell* is gone."""
        self._due.pop(cell, None)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            due = min(self._due.values(), default=float("inf")) + STUCK_AFTER
            with trio.move_on_at(due):
                await self._news.park()
                continue
            now = trio.current_time()
            for cell, at in list(self._due.items()):
                if at + STUCK_AFTER <= now:
                    del self._due[cell]
                    cell.emit(
                        "actor_stuck",
                        since_ms=round((now - at) * 1000),
                        handling=cell.message_type(),
                    )

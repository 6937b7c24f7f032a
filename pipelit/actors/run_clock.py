"""The times of one run: what is due, how much active time is used. Contract: engine.md §11.2."""

from datetime import timedelta

import trio

from pipelit.actors.step_rows import Stamp
from pipelit.clock import Clock
from pipelit.engine.changes import Ending
from pipelit.store.queries.journal import Loaded


class RunClock:
    """Counts from the moment an actor has taken the run up."""

    def __init__(self, clock: Clock, loaded: Loaded) -> None:
        self._clock = clock
        self._limit = loaded.limit_seconds
        self._used = loaded.active_us / 1e6
        self._resumed_at = trio.current_time()
        self._latest = 0.0
        self.started_at = loaded.started_at or loaded.created_at

    def begin(self) -> None:
        """The run starts now."""
        self.started_at = self._clock.now()

    def pass_over(self, at: float) -> None:
        """Take it that *at* (Unix seconds) is over, whatever the wall clock says."""
        self._latest = max(self._latest, at)

    def now(self) -> float:
        """Return Unix seconds that never run backwards: what was due stays due."""
        self.pass_over(self._clock.now().timestamp())
        return self._latest

    def stamp(self) -> Stamp:
        """Return when a step happens that happens now."""
        return Stamp(now=self._clock.now(), active_us=int(self._active_seconds() * 1e6))

    def remaining(self) -> float:
        """Return the active seconds that are left to the run."""
        return self._limit - self._active_seconds()

    def elapsed_ms(self) -> int:
        """Return the time since the run started."""
        return (self._clock.now() - self.started_at) // timedelta(milliseconds=1)

    def timed_out(self) -> Ending:
        """Return how a run ends that has used its time."""
        elapsed = round(self._active_seconds())
        return Ending(
            status="failed",
            error_message=f"Execution timed out after {elapsed}s (limit: {self._limit}s)",
            error_code="ExecutionTimeoutError",
        )

    def _active_seconds(self) -> float:
        return self._used + trio.current_time() - self._resumed_at

"""The clocks of one attempt: how long it may take, and how long it may be silent.

Neither runs while the attempt waits for child executions. Contract: engine.md §11.2.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from pipelit.actors.attempt_limits import Limits


class AttemptTime:
    """Two scopes, entered one in the other. Begins when it is made."""

    def __init__(self, limits: Limits) -> None:
        now = trio.current_time()
        self._limits = limits
        self._waits = 0
        self._left = limits.wall
        self.wall = trio.CancelScope(deadline=now + limits.wall)
        self.idle = trio.CancelScope(deadline=now + limits.idle)

    def alive(self) -> None:
        """Move the inactivity deadline: a sign of life."""
        if not self._waits:
            self.idle.deadline = trio.current_time() + self._limits.idle

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Let the clocks stand for as long as the block lasts; blocks may overlap."""
        self._waits += 1
        if self._waits == 1:
            self.idle.deadline = float("inf")
            if self._limits.wall_stands:
                self._left = self.wall.deadline - trio.current_time()
                self.wall.deadline = float("inf")
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits:
                self.alive()
                if self._limits.wall_stands:
                    self.wall.deadline = trio.current_time() + self._left

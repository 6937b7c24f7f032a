"""Remembers who failed lately, in bounded memory. Contract: auth.md, Login throttle."""

from collections import OrderedDict, deque

Origin = tuple[str, str]
"""Client address and username: nobody can lock out the owner from another address."""


class Throttle:
    """Counts failures per origin. Pure but for its memory; the caller tells the time.

    Args:
        allowed: failures within the window after which the next try is still let through.
        window: seconds.
        capacity: origins remembered; those whose last failure is oldest are forgotten first.
    """

    def __init__(self, *, allowed: int = 10, window: float = 60.0, capacity: int = 10_000) -> None:
        self._allowed = allowed
        self._window = window
        self._capacity = capacity
        # Ordered by last failure, oldest first; each holds the newest `allowed + 1` times.
        self._failures: OrderedDict[Origin, deque[float]] = OrderedDict()

    def wait(self, origin: Origin, now: float) -> float:
        """Return the seconds until *origin* may try again; 0 means now."""
        times = self._failures.get(origin)
        if times is None or len(times) <= self._allowed:
            return 0.0
        return max(0.0, times[0] + self._window - now)

    def fail(self, origin: Origin, now: float) -> None:
        """Count a failure of *origin* at *now*."""
        times = self._failures.setdefault(origin, deque(maxlen=self._allowed + 1))
        times.append(now)
        self._failures.move_to_end(origin)
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._failures:
            oldest = next(iter(self._failures.values()))
            if len(self._failures) <= self._capacity and oldest[-1] + self._window > now:
                return
            self._failures.popitem(last=False)

"""What happens after an end: pure decisions on counts and times, no clock and no tasks."""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from random import Random

import msgspec


class Restart(StrEnum):
    """When an actor that ended by itself is started again."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """After a crash."""
    TEMPORARY = "temporary"
    """Never."""


class Directive(StrEnum):
    """What `decide` may answer to a crash; also `detail.next` of an `actor_crashed` record."""

    RESTART = "restart"
    STOP = "stop"
    ESCALATE = "escalate"


class OnLimit(StrEnum):
    """What happens when the restart limit is exceeded."""

    ESCALATE = "escalate"
    STOP_CHILD = "stop_child"


Decide = Callable[[Exception], Directive]


class RestartLimit(msgspec.Struct, frozen=True):
    """At most `restarts` within any `within` seconds, both ends included; then `then`."""

    restarts: int = 3
    within: float = 60.0
    then: OnLimit = OnLimit.ESCALATE

    def __post_init__(self) -> None:
        if self.restarts < 0 or self.within <= 0:
            raise ValueError(f"not a restart limit: {self.restarts} in {self.within} s")


class Backoff(msgspec.Struct, frozen=True):
    """Pause before the n-th restart in a row: `first * factor ** (n - 1)`, at most `cap`, ± jitter.

    Seconds; `jitter` is a share of the pause, 0 ≤ jitter < 1. An incarnation that was up for
    `reset_after` seconds ends the row.
    """

    first: float = 0.1
    factor: float = 2.0
    cap: float = 30.0
    jitter: float = 0.1
    reset_after: float = 60.0

    def __post_init__(self) -> None:
        if not (0 <= self.first <= self.cap and self.factor >= 1 and 0 <= self.jitter < 1):
            raise ValueError(f"not a backoff: {self}")

    def delay(self, failures: int, rng: Random) -> float:
        """Return the pause, in seconds, after so many *failures* in a row (1, 2, 3 …)."""
        pause = self.first
        for _ in range(failures - 1):
            pause *= self.factor
            if pause >= self.cap or self.factor == 1:
                break
        return min(self.cap, pause) * (1 + self.jitter * rng.uniform(-1, 1))


class Window:
    """The failures that still count against a limit. Siblings may share one."""

    def __init__(self, limit: RestartLimit) -> None:
        self.limit = limit
        self._failures: deque[float] = deque()

    def add(self, now: float) -> int:
        """Note a failure at *now*; return how many there are in the window, this one included."""
        self._failures.append(now)
        while now - self._failures[0] > self.limit.within:
            self._failures.popleft()
        return len(self._failures)


class Verdict(msgspec.Struct, frozen=True):
    """What follows an end that nobody asked for."""

    next: Directive
    in_window: int = 0
    """Failures in the window, this one included; 0 if it was not counted."""
    gave_up: bool = False
    """The limit is exceeded, or `decide` said that this must not be survived."""


def judge(directive: Directive, restart: Restart, window: Window, now: float) -> Verdict:
    """Decide what follows a failure at *now*, and count it if it costs a restart."""
    if directive is Directive.ESCALATE:
        return Verdict(Directive.ESCALATE, gave_up=True)
    if directive is Directive.STOP or restart is Restart.TEMPORARY:
        return Verdict(Directive.STOP)
    in_window = window.add(now)
    if in_window <= window.limit.restarts:
        return Verdict(Directive.RESTART, in_window)
    if window.limit.then is OnLimit.ESCALATE:
        return Verdict(Directive.ESCALATE, in_window, gave_up=True)
    return Verdict(Directive.STOP, in_window, gave_up=True)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What a spec says about ends, whatever kind of thing it describes."""

    restart: Restart
    grace: float
    backoff: Backoff = Backoff()
    decide: Decide | None = None

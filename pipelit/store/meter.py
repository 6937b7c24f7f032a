"""What the writer counts about itself."""

import math
from collections import deque
from collections.abc import Callable, Collection
from typing import TypeAlias

import msgspec

OnCommit: TypeAlias = Callable[[int, float], object]
"""(units, seconds) of one committed transaction; must be quick and never raise."""

_RING = 1024


def ignore_commit(_units: int, _seconds: float) -> None:
    """Nobody wants to know."""


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The writer at one moment. Totals count from the start of the process."""

    queue_depth: int
    """Units waiting or being committed."""
    queue_capacity: int
    commits: int
    """Transactions committed."""
    units: int
    """Units in those transactions, failed ones included."""
    failed_units: int
    """Units that raised."""
    commit_seconds_total: float
    batch_sizes: tuple[int, ...]
    """Units per transaction, the latest 1024, oldest first."""
    commit_seconds: tuple[float, ...]
    """Time per transaction, the latest 1024, oldest first."""
    stalled_seconds: float
    """How long units have been waiting without any commit; 0 when none waits."""
    storage_ok: bool
    """False from a write that storage refused until the next commit."""

    @property
    def batch_p50(self) -> int:
        """Median of `batch_sizes`; 0 before the first commit."""
        return int(_percentile(self.batch_sizes, 0.5))

    @property
    def commit_ms_p99(self) -> float:
        """99th percentile of `commit_seconds`, in milliseconds; 0 before the first commit."""
        return _percentile(self.commit_seconds, 0.99) * 1000


class Meter:
    """Running totals and the latest transactions. Owned by the writer."""

    def __init__(self, on_commit: OnCommit = ignore_commit) -> None:
        self._on_commit = on_commit
        self.commits = 0
        self.units = 0
        self.failed_units = 0
        self.commit_seconds_total = 0.0
        self.batch_sizes: deque[int] = deque(maxlen=_RING)
        self.commit_seconds: deque[float] = deque(maxlen=_RING)

    def count(self, *, units: int, failed: int, seconds: float) -> None:
        """Take note of one committed transaction."""
        self.commits += 1
        self.units += units
        self.failed_units += failed
        self.commit_seconds_total += seconds
        self.batch_sizes.append(units)
        self.commit_seconds.append(seconds)
        self._on_commit(units, seconds)


def _percentile(values: Collection[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0

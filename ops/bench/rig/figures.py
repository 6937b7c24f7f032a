"""What a series of measurements says: percentiles, rates, and a row of the table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Series:
    """Durations in seconds of operations of one kind, and how many failed."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0

    def at(self, quantile: float) -> float:
        """Return a quantile in milliseconds; NaN of an empty series."""
        if not self.seconds:
            return math.nan
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    figures: Sequence[tuple[str, float, str]]
    """(what, how much, unit)"""

    def __str__(self) -> str:
        shown = "  ".join(f"{what} {_round(value)}{unit}" for what, value, unit in self.figures)
        return f"{self.name:<34} {shown}"


def timed(name: str, series: Series, elapsed: float, cpu: float) -> Row:
    """Describe a load: operations per second, latencies, errors and processor time of each."""
    done = len(series.seconds)
    return Row(
        name,
        (
            ("", done / elapsed, "/s"),
            ("p50", series.at(0.5), " ms"),
            ("p95", series.at(0.95), " ms"),
            ("p99", series.at(0.99), " ms"),
            ("errors", series.errors, ""),
            ("cpu", cpu / max(done, 1) * 1000, " ms each"),
        ),
    )


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

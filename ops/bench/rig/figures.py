"""What a series of measurements says: percentiles, rates, and the rows of the table."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

_ROUNDS = 20_000


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
    """One line of the table.

    `figures`: (what, how much, unit). `cost`: processor time of one item in ms, what
    `--check` holds against the recorded one; None if it is not to be checked.
    """

    name: str
    figures: Sequence[tuple[str, float, str]]
    cost: float | None = None

    def __str__(self) -> str:
        return f"{self.name:<38} {self.text()}"

    def text(self) -> str:
        """Return the figures in one line."""
        return ", ".join(
            f"{what} {_round(value)}{unit}".strip() for what, value, unit in self.figures
        )


Tell: TypeAlias = Callable[[Row], None]
"""Called with each row as soon as it is measured."""


def timed(name: str, series: Series, elapsed: float, cpu: float) -> Row:
    """Describe a load: operations per second, latencies, errors and processor time of each."""
    done = len(series.seconds)
    cost = cpu / max(done, 1) * 1000
    return Row(
        name,
        (
            ("", done / elapsed, "/s"),
            ("p50", series.at(0.5), " ms"),
            ("p95", series.at(0.95), " ms"),
            ("p99", series.at(0.99), " ms"),
            ("errors", series.errors, ""),
            ("cpu", cost, " ms each"),
        ),
        cost,
    )


async def baseline() -> float:
    """Return the processor time that a fixed piece of work on Trio needs here and now, in ms.

    Costs are compared as multiples of it, so that a claim holds on any machine.
    """
    send, receive = trio.open_memory_channel[dict[str, int]](100)

    async def produce() -> None:
        async with send:
            for number in range(_ROUNDS):
                await send.send({"number": number})

    begun = time.process_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        async for _ in receive:
            pass
    return (time.process_time() - begun) * 1000


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""What one seed decides: the order of tasks, how the weather is, when ports are late or fail.

Every stream of chance has a name of its own, so that one more draw in one of them moves no other.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

import msgspec
import trio
from trio.lowlevel import checkpoint

T = TypeVar("T")


class Climate(msgspec.Struct, frozen=True, kw_only=True):
    """How rough a run is. Probabilities are per event of their kind."""

    late: float
    """A port answers noticeably late."""
    storage_refuses: float
    read_fails: float
    network_fails: float
    model_fails: float
    process_fails: float
    actor_crashes: float
    reply_late: float
    deaths: float
    """Ends of the process without warning, expected number in a run."""
    stops: float
    """Ends of the process in order, expected number in a run."""
    clock_jumps: float
    """Jumps of the wall clock, expected number in a run."""


CALM = Climate(
    late=0.0,
    storage_refuses=0.0,
    read_fails=0.0,
    network_fails=0.0,
    model_fails=0.0,
    process_fails=0.0,
    actor_crashes=0.0,
    reply_late=0.0,
    deaths=0.0,
    stops=0.0,
    clock_jumps=0.0,
)


class Chance:
    """All chance of one run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, Random] = {}
        self.climate = CALM
        self.stormy = self._draw_climate()

    def stream(self, name: str) -> Random:
        """Return the stream of this name, always the same one."""
        if name not in self._streams:
            self._streams[name] = Random(f"{self.seed}/{name}")
        return self._streams[name]

    def happens(self, name: str, probability: float) -> bool:
        """Tell whether something with this probability happens now."""
        return probability > 0 and self.stream(name).random() < probability

    async def pause(self, name: str, *, usual: float = 0.0, late: float = 2.0) -> None:
        """Let a port take its time: mostly next to none, sometimes up to *late* seconds."""
        stream = self.stream(name)
        seconds = stream.expovariate(1 / usual) if usual else 0.0
        if self.happens(name, self.climate.late):
            seconds += stream.uniform(0.0, late)
        if seconds > 0:
            await trio.sleep(seconds)
        else:
            await checkpoint()

    def _draw_climate(self) -> Climate:
        draw = self.stream("climate")

        def some(most: float) -> float:
            # A third of all runs spare each kind of trouble: the others are seen alone, too.
            return draw.choice((0.0, 0.2, 1.0)) * most

        return Climate(
            late=some(0.08),
            storage_refuses=some(0.03),
            read_fails=some(0.005),
            network_fails=some(0.3),
            model_fails=some(0.2),
            process_fails=some(0.2),
            actor_crashes=some(0.004),
            reply_late=some(0.02),
            deaths=some(3.0),
            stops=some(2.0),
            clock_jumps=some(2.0),
        )


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Let `owner.name` be *value* for the length of the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def ordered(seed: int) -> Iterator[None]:
    """Let Trio draw the order of tasks from *seed*, and the modules' own chance with it.

    The hooks are those Hypothesis uses to make Trio reproducible.
    """
    from trio._core import _run

    with replaced(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
        _run._r.seed(seed)  # noqa: SLF001 - there is no public way
        random.seed(seed)
        yield

"""A wall clock that a test moves by hand."""

from datetime import UTC, datetime, timedelta

from pipelit.clock import Clock


class HandClock(Clock):
    """Wall time that moves only when a test moves it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

"""When a failed attempt is tried again. Contract: engine.md §11.1."""

from pipelit.engine.outcome import Failure

RETRY_DELAYS = (1.0, 2.0, 4.0)
"""Seconds before the second, third and fourth attempt."""


def retry_delay(failure: Failure, *, attempt: int) -> float | None:
    """Return the seconds until the next attempt, or None when *attempt* (from 0) was the last."""
    if not failure.retryable or attempt >= len(RETRY_DELAYS):
        return None
    return RETRY_DELAYS[attempt]

"""Size limits checked at each commit. Contract: engine.md §31."""

import msgspec

from pipelit.engine.journal import RunState
from pipelit.engine.loops import LoopRun
from pipelit.engine.outcome import Failure, Outcome, json_size


class SizeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of JSON allowed."""

    node_output: int = 1_048_576
    state: int = 16_777_216


def oversize(outcome: Outcome, state: RunState, limits: SizeLimits) -> Failure | None:
    """Return the failure of an outcome that is too large for its node or for the execution."""
    size = json_size(outcome.ports) + (json_size(outcome.loop_items) if outcome.loop_items else 0)
    if size > limits.node_output:
        return _too_large("Node output", size, limits.node_output)
    total = state.size + size + sum(map(json_size, outcome.messages))
    if total > limits.state:
        return _too_large("Execution state", total, limits.state)
    return None


def oversize_loop(
    outcome: Outcome, run: LoopRun, state: RunState, limits: SizeLimits
) -> Failure | None:
    """Return the failure of a loop whose result is too large: it replaces its items and results."""
    size = json_size(outcome.ports)
    if size > limits.node_output:
        return _too_large("Node output", size, limits.node_output)
    total = state.size - run.size + size
    return _too_large("Execution state", total, limits.state) if total > limits.state else None


def _too_large(what: str, size: int, limit: int) -> Failure:
    return Failure(
        code="OutputTooLargeError",
        message=f"{what} too large ({size} bytes, limit {limit})",
        retryable=False,
    )

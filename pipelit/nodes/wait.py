"""The `wait` node: it says how long, the engine waits.

Contract: node-types.md §10.6, engine.md §14.
"""

from pipelit.engine.outcome import Outcome
from pipelit.engine.values import to_number, to_text
from pipelit.nodes.base import NodeCall, config_error

_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600}


async def wait(call: NodeCall) -> Outcome:
    """Delay the node's success."""
    duration = to_number(call.extra.get("duration", 0))
    if duration is None:
        raise config_error("Wait duration must be a number")
    unit = to_text(call.extra.get("unit") or "seconds")
    if unit not in _SECONDS:
        raise config_error(f"Unknown wait unit '{unit}'")
    duration = max(0, duration)
    seconds = duration * _SECONDS[unit]
    if seconds > call.remaining_seconds:
        raise config_error(
            f"Wait of {to_text(seconds)}s exceeds the remaining execution time "
            f"({int(call.remaining_seconds)}s)"
        )
    return Outcome(
        ports={"output": f"Waited {to_text(duration)} {unit}"}, delay_seconds=float(seconds)
    )

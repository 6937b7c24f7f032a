"""How long an attempt of a node may take. Contract: engine.md §11.2."""

from typing import TypeGuard

import msgspec

from pipelit.engine.definition import NodeDef
from pipelit.engine.outcome import Failure

NODE_TIMEOUT = 600.0
AGENT_IDLE = 600.0
AGENT_WALL = 7200.0


class Limits(msgspec.Struct, frozen=True):
    """Time limits of an attempt, in seconds, and the failures they lead to."""

    wall: float
    on_wall: Failure
    idle: float
    on_idle: Failure

    @property
    def wall_stands(self) -> bool:
        """Whether `wall` stands while the attempt waits: an agent's `max_wall_time` goes on."""
        return self.on_wall.code == "NodeTimeoutError"


def limits_of(node: NodeDef) -> Limits:
    """Return the limits of each attempt of *node*."""
    own = node.extra.get("node_timeout_seconds")
    set_by_node = float(own) if _is_positive(own) else None
    if node.component_type not in {"agent", "deep_agent"}:
        wall = set_by_node or NODE_TIMEOUT
        return Limits(wall, _timed_out(wall), float("inf"), _timed_out(wall))
    idle = _seconds(node, "inactivity_timeout", AGENT_IDLE)
    wall = _seconds(node, "max_wall_time", AGENT_WALL)
    on_wall = Failure(
        code="AgentTimeoutError",
        message=f"Agent exceeded max_wall_time ({wall:g}s)",
        retryable=False,
    )
    if set_by_node is not None and set_by_node < wall:
        wall, on_wall = set_by_node, _timed_out(set_by_node)
    on_idle = Failure(
        code="AgentInactivityTimeout", message=f"Agent inactive for {idle:g}s", retryable=True
    )
    return Limits(wall, on_wall, idle, on_idle)


def _timed_out(seconds: float) -> Failure:
    return Failure(
        code="NodeTimeoutError", message=f"Node timed out after {seconds:g}s", retryable=True
    )


def _seconds(node: NodeDef, key: str, default: float) -> float:
    value = node.extra.get(key)
    return float(value) if _is_positive(value) else default


def _is_positive(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0

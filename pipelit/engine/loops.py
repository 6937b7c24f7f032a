"""A loop at work: its items, where it is, what its iterations gave, and what comes next.

Contract: engine.md §13.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from pipelit.engine.graph import Plan
from pipelit.engine.outcome import Failure, Outcome, json_size
from pipelit.engine.records import Iterating, Looped, NodeFailed
from pipelit.engine.routing import continues
from pipelit.engine.specs import primary_port

MAX_ITEM_ERROR = 500


class LoopRun(msgspec.Struct, kw_only=True):
    """The progress of one loop. Part of the fold: changed by it only."""

    looped: Looped
    index: int = -1
    left: int = 0  # own body nodes that are not resolved in this iteration
    failure: NodeFailed | None = None  # the first one of this iteration that nothing else handles
    results: list[dict[str, Any]] = []
    size: int = 0  # bytes of JSON in items and results

    @property
    def items(self) -> list[Any]:
        """What the loop runs over."""
        return self.looped.outcome.loop_items or []

    @property
    def view(self) -> dict[str, int]:
        """Where the loop is, as events say it."""
        return {"index": self.index, "total": len(self.items)}

    def collect(self, plan: Plan, ports_of: Callable[[str], dict[str, Any] | None]) -> int:
        """Keep the result of the iteration that is over; return its bytes of JSON."""
        returns = plan.bodies[self.looped.node_id].returns
        given: dict[str, Any]
        if self.failure is not None:
            error = {
                "error": self.failure.message[:MAX_ITEM_ERROR],
                "error_code": self.failure.code,
                "failed_node": self.failure.node_id,
            }
            given = dict.fromkeys(returns, error)
        else:
            given = {node_id: _shown(ports_of(node_id)) for node_id in returns}
        self.results.append(given)
        size = json_size(given)
        self.size += size
        return size


def what_next(plan: Plan, run: LoopRun) -> Iterating | Outcome | Failure:
    """Say how a loop goes on whose iteration is over: with the next one, or with its own end."""
    loop_id = run.looped.node_id
    if run.failure is not None and not continues(plan, loop_id):
        return Failure(
            code=run.failure.code,
            message=f"Node {run.failure.node_id} failed: {run.failure.message}",
            retryable=False,
        )
    if plan.bodies[loop_id].own and run.index + 1 < len(run.items):
        return Iterating(node_id=loop_id, iteration=run.looped.iteration, index=run.index + 1)
    ports: dict[str, Any] = {
        "items": run.items,
        "results": list(run.results),
        "count": len(run.results),
    }
    returns = plan.bodies[loop_id].returns
    if len(returns) == 1:
        port = primary_port(plan.nodes[returns[0]].component_type)
        ports["values"] = [_primary(result[returns[0]], port) for result in run.results]
    return Outcome(ports=ports, report=run.looped.outcome.report)


def _shown(ports: dict[str, Any] | None) -> dict[str, Any] | None:
    """Leave out an agent's conversation, as logs and outputs do."""
    if ports is None:
        return None
    return {name: value for name, value in ports.items() if name != "messages"}


def _primary(ports: dict[str, Any] | None, port: str | None) -> Any:
    return None if ports is None or port is None else ports.get(port)

"""The `loop` node: it finds its items, the engine runs its body once for each.

Contract: engine.md §13, node-types.md §10.5.
"""

from pipelit.engine.outcome import Outcome, Report
from pipelit.engine.values import to_integer
from pipelit.nodes.base import NodeCall, NodeError, config_error
from pipelit.nodes.items import find_items


async def loop(call: NodeCall, *, max_iterations: int) -> Outcome:
    """Find the items to iterate over.

    Args:
        call: the attempt.
        max_iterations: most items of a loop that names no limit.

    Raises:
        NodeError: `LoopLimitError`; there are more items than the loop may have. `ConfigError`;
            its limit is no whole number above zero.
    """
    given = call.extra.get("max_iterations")
    limit = max_iterations if given is None else to_integer(given)
    if limit is None or limit < 1:
        raise config_error("max_iterations must be a whole number above zero")
    found = find_items(call)
    if len(found.items) > limit:
        raise NodeError(
            f"Loop '{call.node.node_id}' has {len(found.items)} items, "
            f"more than max_iterations ({limit})",
            code="LoopLimitError",
            retryable=False,
        )
    return Outcome(ports={}, loop_items=found.items, report=Report(warnings=found.warnings))

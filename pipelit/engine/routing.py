"""Which edges a finished node takes. Contract: engine.md §12.1–12.3."""

from collections.abc import Sequence
from typing import Literal

from pipelit.engine.definition import EdgeDef, flow_targets
from pipelit.engine.graph import Plan

Ending = Literal["success", "failed", "skipped"]


def taken_targets(plan: Plan, node_id: str, ending: Ending, route: str) -> set[tuple[int, str]]:
    """Return the (edge id, target) pairs taken when *node_id* ended; all its others are dead.

    Edges into an `error_handler` are taken exactly when the node failed and the failure is
    handled; every other edge only after success.
    """
    edges = [edge for edge in plan.outgoing.get(node_id, ()) if edge.edge_label == ""]
    errors = [edge for edge in edges if is_error_edge(plan, edge)]
    if ending == "failed":
        return {(edge.id, edge.target_node_id) for edge in errors}
    if ending == "skipped" or plan.nodes[node_id].component_type == "reply_chat":
        return set()
    flow = [edge for edge in edges if edge not in errors]
    conditional = [edge for edge in flow if edge.is_conditional]
    if conditional:
        return _matching(conditional, route)
    return {(edge.id, edge.target_node_id) for edge in flow}


def has_error_edge(plan: Plan, node_id: str) -> bool:
    """Tell whether a permanent failure of the node is handled by a successor (engine.md §17.1)."""
    return any(is_error_edge(plan, edge) for edge in plan.outgoing.get(node_id, ()))


def continues(plan: Plan, loop_id: str) -> bool:
    """Tell whether a loop goes on with its next item after a failure (engine.md §13.5)."""
    return plan.nodes[loop_id].extra.get("on_error") == "continue"


def is_handled(plan: Plan, node_id: str) -> bool:
    """Tell whether a run goes on after a permanent failure of the node.

    An error handler follows it, or a loop around it continues. A loop that stops fails itself,
    which may be handled in turn.
    """
    current: str | None = node_id
    while current is not None:
        if has_error_edge(plan, current):
            return True
        current = plan.loop_of.get(current)
        if current is not None and continues(plan, current):
            return True
    return False


def is_error_edge(plan: Plan, edge: EdgeDef) -> bool:
    """Tell whether an edge is taken when its source fails, and only then."""
    target = plan.nodes.get(edge.target_node_id)
    return target is not None and target.component_type == "error_handler"


def _matching(conditional: Sequence[EdgeDef], route: str) -> set[tuple[int, str]]:
    for wanted in (route, "default"):
        matched = {(e.id, e.target_node_id) for e in conditional if e.condition_value == wanted}
        if matched:
            return matched
    first = conditional[0]
    mapped = (first.condition_mapping or {}).get(route)
    return {(first.id, str(mapped))} if mapped in flow_targets(first) else set()

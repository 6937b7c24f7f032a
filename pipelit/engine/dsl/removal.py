"""Taking a step out of a flow, so that what came before it leads to what came after it.

Contract: engine.md §27.6 `remove_step`.
"""

from collections.abc import Iterator

import msgspec

from pipelit.engine.definition import END, FLOW_LABELS, EdgeDef
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.structure import Flow

_HANDLER = "error_handler"


def remove_step(draft: Draft, node_id: str) -> None:
    """Remove a step, a loop with its body, and close the gap.

    Error edges are not passed on: a handler goes on handling the steps it was meant for.
    """
    gone = {node_id}
    if draft.nodes[node_id].component_type == "loop":
        gone |= Flow(list(draft.nodes.values()), draft.edges).body(node_id)
    bridges = list(_bridges(draft, node_id, gone))
    draft.remove_nodes([one for one in draft.nodes if one in gone])
    for bridge in bridges:
        draft.add_edge(bridge)


def _bridges(draft: Draft, node_id: str, gone: set[str]) -> Iterator[EdgeDef]:
    if draft.nodes[node_id].component_type == _HANDLER:
        return
    flow = [edge for edge in draft.edges if edge.edge_label in FLOW_LABELS]
    before = [e for e in flow if e.target_node_id == node_id and e.source_node_id not in gone]
    after = [
        edge
        for edge in flow
        if edge.source_node_id == node_id
        and edge.target_node_id not in gone
        and not is_error_edge(draft, edge)
    ]
    for entering in before:
        for leaving in after:
            bridge = _bridge(entering, leaving)
            if bridge is not None:
                yield bridge


def is_error_edge(draft: Draft, edge: EdgeDef) -> bool:
    """Tell whether an edge is taken only when its source fails."""
    target = draft.nodes.get(edge.target_node_id)
    return target is not None and target.component_type == _HANDLER and not edge.edge_label


def _bridge(entering: EdgeDef, leaving: EdgeDef) -> EdgeDef | None:
    """Return the edge that replaces two, or None where no edge could stand.

    A route stays the route it was; entering or leaving a loop's body stays that.
    """
    label = entering.edge_label or leaving.edge_label
    target = leaving.target_node_id
    is_impossible = (
        target == entering.source_node_id
        or (entering.edge_label and leaving.edge_label)
        or (entering.is_conditional and label)
        or (label and target == END)
    )
    if is_impossible:
        return None
    return msgspec.structs.replace(entering, target_node_id=target, edge_label=label)

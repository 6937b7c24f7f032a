"""The subgraph one execution runs: its scope, copied at the start, and the plan compiled from it.

Contract: engine.md §6. Node types are looked up through `pipelit.engine.specs`.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from pipelit.engine.definition import END, FLOW_LABELS, EdgeDef, NodeDef, flow_targets
from pipelit.engine.specs import is_attach_only, is_trigger
from pipelit.engine.structure import Flow


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution runs, kept as long as the execution: later edits never reach it.

    `nodes` holds the firing trigger, the graph nodes in scope and what is attached to them;
    `edges` only those between them (and to `__end__`), in edge order (priority, id).
    `walked` names the graph nodes in row order; `entries` where a run without a trigger starts.
    """

    trigger_node_id: str | None
    nodes: tuple[NodeDef, ...]
    edges: tuple[EdgeDef, ...]
    walked: tuple[str, ...]
    entries: tuple[str, ...] = ()


def edge_order(edges: Iterable[EdgeDef]) -> list[EdgeDef]:
    """Sort edges the way every rule reads them: priority, then id (engine.md §1.4)."""
    return sorted(edges, key=lambda edge: (edge.priority, edge.id))


def build_snapshot(
    nodes: Iterable[NodeDef], edges: Iterable[EdgeDef], trigger_node_id: str | None
) -> Snapshot:
    """Compile the scope of one trigger.

    Graph nodes are those reached from the trigger over flow edges; other triggers are never
    entered; broken nodes outside the scope do not matter.
    """
    by_id = {node.node_id: node for node in nodes}
    ordered = edge_order(edges)
    flow = [edge for edge in ordered if edge.edge_label in FLOW_LABELS]
    entries = _entry_nodes(by_id, ordered, trigger_node_id)
    reached = _reach(by_id, flow, entries)
    stepped = reached | ({trigger_node_id} if trigger_node_id else set())
    inside = stepped | {
        edge.source_node_id
        for edge in ordered
        if edge.edge_label not in FLOW_LABELS and edge.target_node_id in reached
    }
    kept = tuple(
        edge
        for edge in ordered
        if edge.source_node_id in (stepped if edge.edge_label in FLOW_LABELS else inside)
        and (edge.target_node_id in inside or edge.target_node_id == END)
    )
    scope = sorted((by_id[n] for n in inside if n in by_id), key=lambda node: node.id)
    return Snapshot(
        trigger_node_id=trigger_node_id,
        nodes=tuple(scope),
        edges=kept,
        walked=tuple(node.node_id for node in scope if node.node_id in reached),
        entries=() if trigger_node_id else tuple(n for n in entries if n in reached),
    )


def _entry_nodes(
    by_id: Mapping[str, NodeDef], ordered: list[EdgeDef], trigger_node_id: str | None
) -> list[str]:
    if trigger_node_id is not None:
        return [
            target
            for edge in ordered
            if edge.source_node_id == trigger_node_id and edge.edge_label == ""
            for target in flow_targets(edge)
        ]
    flow = [edge for edge in ordered if edge.edge_label in FLOW_LABELS]
    targets = {target for edge in flow for target in flow_targets(edge)}
    attached = {edge.source_node_id for edge in ordered if edge not in flow} - targets
    runnable = [n for n in by_id.values() if _is_graph_node(n) and n.node_id not in attached]
    flagged = [node.node_id for node in runnable if node.is_entry_point]
    free = [node.node_id for node in runnable if node.node_id not in targets]
    lowest = [node.node_id for node in sorted(runnable, key=lambda node: node.id)[:1]]
    return flagged or free or lowest


def _reach(by_id: Mapping[str, NodeDef], flow: list[EdgeDef], entries: list[str]) -> set[str]:
    outgoing: dict[str, list[EdgeDef]] = {}
    for edge in flow:
        outgoing.setdefault(edge.source_node_id, []).append(edge)
    reached: set[str] = set()
    queue = deque(entries)
    while queue:
        node_id = queue.popleft()
        node = by_id.get(node_id)
        if node is None or node_id in reached or not _is_graph_node(node):
            continue
        reached.add(node_id)
        queue.extend(target for edge in outgoing.get(node_id, ()) for target in flow_targets(edge))
    return reached


def _is_graph_node(node: NodeDef) -> bool:
    return not is_trigger(node.component_type) and not is_attach_only(node.component_type)


class Body(msgspec.Struct, frozen=True):
    """What a loop repeats. `nodes`: all, those of inner loops too; `own`: without the latter.

    `returns`: the nodes whose ports are an iteration's result.
    """

    nodes: tuple[str, ...]
    own: tuple[str, ...]
    returns: tuple[str, ...]


class Plan:
    """A snapshot compiled for walking. Immutable and shared by all executions of one version."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.nodes: Mapping[str, NodeDef] = {node.node_id: node for node in snapshot.nodes}
        self.outgoing: dict[str, list[EdgeDef]] = {}
        self.incoming: dict[str, list[EdgeDef]] = {}
        self._attached: dict[str, list[EdgeDef]] = {}
        for edge in snapshot.edges:
            if edge.edge_label in FLOW_LABELS:
                self.outgoing.setdefault(edge.source_node_id, []).append(edge)
                for target in flow_targets(edge):
                    self.incoming.setdefault(target, []).append(edge)
            else:
                self._attached.setdefault(edge.target_node_id, []).append(edge)
        self.loop_of: dict[str, str] = {}  # {node: the innermost loop around it}
        self.bodies: dict[str, Body] = self._find_bodies()

    def _find_bodies(self) -> dict[str, Body]:
        """Find the body of each loop; an inner loop's body is the smaller one."""
        walked = self.snapshot.walked
        flow = Flow([self.nodes[node_id] for node_id in walked], self.snapshot.edges)
        loops = [n for n in walked if self.nodes[n].component_type == "loop"]
        found = {loop_id: flow.body(loop_id) for loop_id in loops}
        for loop_id in sorted(loops, key=lambda loop_id: len(found[loop_id])):
            for node_id in found[loop_id]:
                self.loop_of.setdefault(node_id, loop_id)
        bodies = {}
        for loop_id, body in found.items():
            own = tuple(n for n in walked if n in body and self.loop_of[n] == loop_id)
            returns = [
                edge.source_node_id
                for edge in self.incoming.get(loop_id, ())
                if edge.edge_label == "loop_return"
            ]
            bodies[loop_id] = Body(
                nodes=tuple(n for n in walked if n in body),
                own=own,
                returns=tuple(dict.fromkeys(returns or filter(self.ends_here, own))),
            )
        return bodies

    def attached(self, node_id: str, *labels: str) -> tuple[NodeDef, ...]:
        """Return the nodes attached to *node_id* through edges of *labels*, in edge order."""
        edges = [e for e in self._attached.get(node_id, ()) if e.edge_label in labels]
        return tuple(self.nodes[edge.source_node_id] for edge in edges)

    def model_of(self, node_id: str) -> NodeDef | None:
        """Return the `ai_model` of a node: that of the `llm` edge with the lowest id."""
        edges = [e for e in self._attached.get(node_id, ()) if e.edge_label == "llm"]
        if not edges:
            return None
        return self.nodes[min(edges, key=lambda edge: edge.id).source_node_id]

    def has_type(self, component_type: str) -> bool:
        """Tell whether a graph node of this type is in scope."""
        return any(self.nodes[n].component_type == component_type for n in self.snapshot.walked)

    def downstream(self, node_id: str) -> set[str]:
        """Return the nodes that flow edges lead to from a node; a loop's way back leads nowhere."""
        found: set[str] = set()
        stack = [node_id]
        while stack:
            for edge in self.outgoing.get(stack.pop(), ()):
                if edge.edge_label != "loop_return":
                    fresh = [target for target in flow_targets(edge) if target not in found]
                    found.update(fresh)
                    stack.extend(fresh)
        return found

    def ends_here(self, node_id: str) -> bool:
        """Tell whether no flow edge leaves the node, error edges not counted."""
        return not any(
            target in self.nodes and self.nodes[target].component_type != "error_handler"
            for edge in self.outgoing.get(node_id, ())
            for target in flow_targets(edge)
        )

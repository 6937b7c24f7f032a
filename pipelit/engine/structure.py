"""The shape of the flow: cycles, and which nodes lie inside which loop.

Contract: engine.md §4.2 (graph errors), §6.6.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from pipelit.engine.definition import FLOW_LABELS, EdgeDef, NodeDef, flow_targets

MAX_LOOP_DEPTH = 10


class Flow:
    """The flow edges among some nodes, ready to be walked. Edges to unknown nodes are ignored."""

    def __init__(self, nodes: Sequence[NodeDef], edges: Iterable[EdgeDef]) -> None:
        self.nodes: Mapping[str, NodeDef] = {node.node_id: node for node in nodes}
        self.edges = [
            edge
            for edge in edges
            if edge.edge_label in FLOW_LABELS and edge.source_node_id in self.nodes
        ]
        self._forward: dict[str, list[tuple[str, str]]] = {node_id: [] for node_id in self.nodes}
        for edge in self.edges:
            if edge.edge_label != "loop_return":
                self._forward[edge.source_node_id] += [
                    (target, edge.edge_label)
                    for target in flow_targets(edge)
                    if target in self.nodes
                ]

    def successors(self, node_id: str) -> list[str]:
        """Return the nodes an edge other than `loop_return` leads to, in edge order."""
        return [target for target, _ in self._forward[node_id]]

    def knotted(self) -> list[str]:
        """Return the nodes that lie on a cycle or between two, in node order; usually none."""
        left = set(self.nodes)
        incoming = dict.fromkeys(left, 0)
        for node_id in left:
            for target in self.successors(node_id):
                incoming[target] += 1
        free = deque(node_id for node_id, count in incoming.items() if not count)
        while free:
            node_id = free.popleft()
            left.remove(node_id)
            for target in self.successors(node_id):
                incoming[target] -= 1
                if not incoming[target]:
                    free.append(target)
        return [node_id for node_id in self.nodes if node_id in left]

    def reachable(self, starts: Iterable[str], *, without: str | None = None) -> set[str]:
        """Return every node on a path from *starts*, which are included; never enter *without*."""
        found: set[str] = set()
        queue = deque(starts)
        while queue:
            node_id = queue.popleft()
            if node_id in found or node_id == without:
                continue
            found.add(node_id)
            queue.extend(self.successors(node_id))
        return found

    def body(self, loop_id: str) -> set[str]:
        """Return the nodes that run once per item of the loop."""
        starts = [target for target, label in self._forward[loop_id] if label == "loop_body"]
        return self.reachable(starts, without=loop_id)

    def entered_from_outside(self, loop_id: str, body: Collection[str]) -> list[str]:
        """Return the body nodes some edge enters without coming from the body or its loop."""
        entered = {
            target
            for source, targets in self._forward.items()
            for target, label in targets
            if target in body
            and source not in body
            and not (source == loop_id and label == "loop_body")
        }
        return [node_id for node_id in self.nodes if node_id in entered]


def graph_errors(flow: Flow) -> list[str]:
    """Return what is wrong with the flow as a whole: cycles, stray returns, leaking bodies."""
    loops = [node.node_id for node in flow.nodes.values() if node.component_type == "loop"]
    bodies = {loop_id: flow.body(loop_id) for loop_id in loops}
    cycles = [
        f"Cycle detected without a loop node: {' → '.join([*cycle, cycle[0]])}"
        for cycle in _cycles(flow)
    ]
    returns = [
        f"loop_return edge from '{edge.source_node_id}' "
        f"does not come from the body of loop '{edge.target_node_id}'"
        for edge in flow.edges
        if edge.edge_label == "loop_return"
        and edge.target_node_id in bodies
        and edge.source_node_id not in bodies[edge.target_node_id]
    ]
    leaks = [
        f"Node '{node_id}' is both inside and outside the body of loop '{loop_id}'"
        for loop_id in loops
        for node_id in flow.entered_from_outside(loop_id, bodies[loop_id])
    ]
    deep = [
        f"Loop '{loop_id}' is nested more than {MAX_LOOP_DEPTH} deep"
        for loop_id in loops
        if sum(loop_id in body for body in bodies.values()) >= MAX_LOOP_DEPTH
    ]
    return cycles + returns + leaks + deep


def _cycles(flow: Flow) -> list[list[str]]:
    """Return one shortest cycle for each knot of the graph, starting at its earliest node.

    Self-edges are not cycles here: an edge rule refuses them.
    """
    found: list[list[str]] = []
    tied: set[str] = set()
    for node_id in flow.knotted():
        if node_id in tied:
            continue
        cycle = _shortest_cycle(flow, node_id)
        if cycle:
            found.append(cycle)
            downstream = flow.reachable([node_id])
            tied |= {other for other in downstream if node_id in flow.reachable([other])}
    return found


def _shortest_cycle(flow: Flow, start: str) -> list[str] | None:
    parents: dict[str, str] = {}
    queue = deque([start])
    while queue:
        node_id = queue.popleft()
        for target in flow.successors(node_id):
            if target == start and node_id != start:
                return _path(parents, start, node_id)
            if target not in parents and target != start:
                parents[target] = node_id
                queue.append(target)
    return None


def _path(parents: Mapping[str, str], start: str, end: str) -> list[str]:
    path = [end]
    while path[-1] != start:
        path.append(parents[path[-1]])
    return path[::-1]

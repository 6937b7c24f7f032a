"""Which edges of a run are resolved, and which were taken. Contract: engine.md §12."""

from collections.abc import Iterable

from pipelit.engine.definition import flow_targets
from pipelit.engine.graph import Plan
from pipelit.engine.routing import Ending, is_error_edge, taken_targets


class Resolution:
    """The edges that enter each node of a run: open at first, then taken or dead."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # A loop does not wait for its own body: `loop_return` edges join nothing.
        self._entering: dict[str, frozenset[tuple[int, str]]] = {
            node: frozenset(
                (edge.id, edge.source_node_id)
                for edge in plan.incoming.get(node, ())
                if edge.edge_label != "loop_return"
            )
            for node in plan.snapshot.walked
        }
        self._open = {node: set(edges) for node, edges in self._entering.items()}
        self._taken_by: dict[str, list[str]] = {}  # {node: taken predecessors, in commit order}

    def leave(self, node: str, ending: Ending, route: str) -> list[str]:
        """Resolve the edges that leave an ended node; return the targets with none left open."""
        taken = taken_targets(self._plan, node, ending, route)
        touched: dict[str, None] = {}
        for edge in self._plan.outgoing.get(node, ()):
            for target in flow_targets(edge):
                if target in self._open and edge.edge_label != "loop_return":
                    touched[target] = None
                    self._open[target].discard((edge.id, node))
                    if (edge.id, target) in taken:
                        self._taken_by.setdefault(target, []).append(node)
        return [target for target in touched if not self._open[target]]

    def enter_body(self, loop: str) -> tuple[str, ...]:
        """Take the edges into a loop's body; return the targets with none left open.

        The loop has not failed, so an error handler there is not reached.
        """
        entered: dict[str, None] = {}
        for edge in self._plan.outgoing.get(loop, ()):
            if edge.edge_label == "loop_body" and edge.target_node_id in self._open:
                entered[edge.target_node_id] = None
                self._open[edge.target_node_id].discard((edge.id, loop))
                if not is_error_edge(self._plan, edge):
                    self._taken_by.setdefault(edge.target_node_id, []).append(loop)
        return tuple(target for target in entered if not self._open[target])

    def reopen(self, nodes: Iterable[str]) -> None:
        """Open all edges that enter these nodes: their body is run once more."""
        for node in nodes:
            self._open[node] = set(self._entering[node])
            self._taken_by.pop(node, None)

    def is_taken(self, node: str) -> bool:
        """Tell whether an edge into the node was taken."""
        return node in self._taken_by

    def latest(self, node: str) -> str | None:
        """Return the taken predecessor that was committed last."""
        sources = self._taken_by.get(node)
        return sources[-1] if sources else None

    def predecessors(self, node: str) -> tuple[str, ...]:
        """Return the taken predecessors of a node, in edge order, the trigger included."""
        taken = set(self._taken_by.get(node, ()))
        ordered = (edge.source_node_id for edge in self._plan.incoming.get(node, ()))
        return tuple(dict.fromkeys(source for source in ordered if source in taken))

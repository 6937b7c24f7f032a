"""A workflow while it is being put together. Contract: engine.md §27.1."""

from collections.abc import Mapping
from typing import Any

from pipelit.engine.definition import EdgeDef, EdgeType, NodeDef
from pipelit.engine.dsl.errors import BuildError
from pipelit.engine.edges import identity
from pipelit.engine.specs import complete_config

_COLUMN, _ROW = 300, 160  # pixels of the canvas


class Draft:
    """Collects nodes and edges, numbers them, and lays them out from left to right.

    A walked node takes the next column; an attached one stands below its owner.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeDef] = {}
        self.edges: list[EdgeDef] = []
        self.warnings: list[str] = []
        self._identities: set[tuple[str, ...]] = set()
        self._columns = 0
        self._below: dict[str, int] = {}

    def add_step(
        self,
        node_id: str,
        component_type: str,
        config: Mapping[str, Any],
        *,
        label: str | None = None,
        interrupt_before: bool = False,
        interrupt_after: bool = False,
    ) -> None:
        """Add a node of the flow.

        Raises:
            BuildError: the id is taken.
        """
        x, self._columns = self._columns * _COLUMN, self._columns + 1
        self._add(
            NodeDef(
                id=len(self.nodes) + 1,
                node_id=node_id,
                component_type=component_type,
                label=label,
                interrupt_before=interrupt_before or component_type == "human_confirmation",
                interrupt_after=interrupt_after,
                config=complete_config(component_type, config),
                position_x=x,
            )
        )

    def attach(
        self,
        node_id: str,
        component_type: str,
        config: Mapping[str, Any],
        *,
        owner: str,
        label: str,
    ) -> None:
        """Add a node that serves *owner*, and the labelled edge between them.

        Raises:
            BuildError: the id is taken.
        """
        rank = self._below[owner] = self._below.get(owner, 0) + 1
        self._add(
            NodeDef(
                id=len(self.nodes) + 1,
                node_id=node_id,
                component_type=component_type,
                config=complete_config(component_type, config),
                position_x=self.nodes[owner].position_x,
                position_y=rank * _ROW,
            )
        )
        self.connect(node_id, owner, label=label)

    def connect(
        self,
        source: str,
        target: str,
        *,
        label: str = "",
        edge_type: EdgeType = "direct",
        value: str = "",
    ) -> None:
        """Add an edge; the same edge twice is one."""
        edge = EdgeDef(
            id=len(self.edges) + 1,
            source_node_id=source,
            target_node_id=target,
            edge_type=edge_type,
            edge_label=label,
            condition_value=value,
        )
        self.add_edge(edge)

    def add_edge(self, edge: EdgeDef) -> None:
        """Add a finished edge, unless the same one is there already."""
        if identity(edge) not in self._identities:
            self._identities.add(identity(edge))
            self.edges.append(edge)

    def warn(self, *warnings: str) -> None:
        """Note what is doubtful; the same doubt twice is one."""
        self.warnings += [warning for warning in warnings if warning not in self.warnings]

    def add_node(self, node: NodeDef) -> None:
        """Add a finished node.

        Raises:
            BuildError: the id is taken.
        """
        self._add(node)

    def _add(self, node: NodeDef) -> None:
        if node.node_id in self.nodes:
            raise BuildError(f"Duplicate node ID '{node.node_id}'")
        self.nodes[node.node_id] = node

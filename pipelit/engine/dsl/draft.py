"""A workflow while it is being put together. Contract: engine.md §27.1."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self

import msgspec

from pipelit.engine.definition import FLOW_LABELS, EdgeDef, EdgeType, NodeDef
from pipelit.engine.dsl.errors import BuildError
from pipelit.engine.dsl.unknown import MAX_TOLD, MORE, unknown_key
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
        self._warnings: dict[str, None] = {}
        self._unknown = 0
        self._identities: set[tuple[str, ...]] = set()
        self._columns = 0
        self._below: dict[str, int] = {}

    @classmethod
    def of(cls, nodes: Iterable[NodeDef], edges: Iterable[EdgeDef]) -> Self:
        """Begin with a workflow that is there already; what is added stands to the right of it."""
        draft = cls()
        for node in sorted(nodes, key=lambda node: node.id):
            draft.add_node(node)
            draft._columns = max(draft._columns, node.position_x // _COLUMN + 1)
        for edge in sorted(edges, key=lambda edge: edge.id):
            draft.add_edge(edge)
            if edge.edge_label not in FLOW_LABELS:
                owner = edge.target_node_id
                draft._below[owner] = draft._below.get(owner, 0) + 1
        return draft

    def free_id(self, stem: str, first: int | None = None) -> str:
        """Return *stem*, or with the first number behind it that makes it unused.

        Args:
            first: the number to begin with, when the stem alone is no id.
        """
        node_id, number = (stem, 2) if first is None else (f"{stem}_{first}", first + 1)
        while node_id in self.nodes:
            node_id, number = f"{stem}_{number}", number + 1
        return node_id

    def replace(self, node: NodeDef) -> None:
        """Put *node* in the place of the one with its id."""
        self.nodes[node.node_id] = node

    def remove_edges(self, doomed: Collection[EdgeDef]) -> None:
        """Remove edges, then whatever only served a node through them."""
        gone = {identity(edge) for edge in doomed}
        self.edges = [edge for edge in self.edges if identity(edge) not in gone]
        self._identities = {identity(edge) for edge in self.edges}
        freed = {edge.source_node_id for edge in doomed if edge.edge_label not in FLOW_LABELS}
        used = {edge.source_node_id for edge in self.edges}
        used |= {edge.target_node_id for edge in self.edges if edge.edge_label in FLOW_LABELS}
        self.remove_nodes(freed - used)

    def remove_nodes(self, node_ids: Collection[str]) -> None:
        """Remove nodes, their edges, and whatever only served them."""
        present = [node_id for node_id in node_ids if node_id in self.nodes]
        for node_id in present:
            del self.nodes[node_id]
        touching = [
            edge
            for edge in self.edges
            if edge.source_node_id in present or edge.target_node_id in present
        ]
        if touching:
            self.remove_edges(touching)

    def move_edges(self, moved: Collection[EdgeDef], source: str) -> None:
        """Have edges leave *source* instead; each keeps its place in the order."""
        moving = {identity(edge) for edge in moved}
        edges, self.edges, self._identities = self.edges, [], set()
        for edge in edges:
            is_moved = identity(edge) in moving
            self.add_edge(
                msgspec.structs.replace(edge, source_node_id=source) if is_moved else edge
            )

    def number(self) -> None:
        """Number nodes and edges from 1 in their order, after some were removed."""
        self.nodes = {
            node.node_id: msgspec.structs.replace(node, id=row)
            for row, node in enumerate(self.nodes.values(), start=1)
        }
        self.edges = [
            msgspec.structs.replace(edge, id=row) for row, edge in enumerate(self.edges, start=1)
        ]

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
        self._warnings.update(dict.fromkeys(warnings))

    def warn_unknown(self, where: str, keys: Iterable[str], known: Collection[str]) -> None:
        """Note the keys that are not *known*, up to a limit for the whole document.

        Args:
            where: what has the keys; "" for the document itself.
        """
        for key in keys:
            if key in known:
                continue
            if self._unknown == MAX_TOLD:
                self.warn(MORE)
                return
            self._unknown += 1
            self.warn(unknown_key(where, key, known))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful, in the order it was noted."""
        return tuple(self._warnings)

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

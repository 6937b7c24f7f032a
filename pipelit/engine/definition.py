"""A workflow as the engine reads it: nodes and edges, nothing of how they are stored.

Contract: engine.md §1.2–1.4, nodes.md "Config", edges.md.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

EdgeType = Literal["direct", "conditional"]

END = "__end__"
"""The pseudo-node an unlabelled edge may point at."""

FLOW_LABELS = frozenset({"", "loop_body", "loop_return"})
"""Labels of the edges that are walked; the others attach a node."""

MAX_NODES = 1000
MAX_EDGES = 5000
"""Most a workflow may hold. Contract: README.md §8."""


class NodeDef(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a workflow.

    `config` is the complete object of nodes.md "Config" (`system_prompt`, `extra_config`, …).
    """

    id: int
    node_id: str
    component_type: str
    label: str | None = None
    is_entry_point: bool = False
    interrupt_before: bool = False
    interrupt_after: bool = False
    config: Mapping[str, Any] = {}
    subworkflow_id: int | None = None
    position_x: int = 0
    position_y: int = 0
    code_block_id: int | None = None

    @property
    def extra(self) -> Mapping[str, Any]:
        """The keys that belong to this component type only; `{}` when there are none."""
        extra = self.config.get("extra_config")
        return extra if isinstance(extra, dict) else {}


class EdgeDef(msgspec.Struct, frozen=True, kw_only=True):
    """One edge of a workflow. `edge_label` is `""` for a flow edge."""

    id: int
    source_node_id: str
    target_node_id: str = ""
    edge_type: EdgeType = "direct"
    edge_label: str = ""
    condition_mapping: Mapping[str, Any] | None = None
    condition_value: str = ""
    priority: int = 0

    @property
    def is_conditional(self) -> bool:
        """Whether a switch decides if this edge is taken."""
        return self.edge_type == "conditional"


def flow_targets(edge: EdgeDef) -> tuple[str, ...]:
    """Return the nodes a flow edge may lead to, legacy condition mappings included."""
    mapped = (str(target) for target in (edge.condition_mapping or {}).values())
    return tuple(dict.fromkeys(t for t in (edge.target_node_id, *mapped) if t and t != END))

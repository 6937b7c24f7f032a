"""Whole-workflow validation, and the same errors for the scope of one execution.

Contract: engine.md §4.2–4.4, workflows.md "validate".
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pipelit.engine import specs
from pipelit.engine.advice import Origin, warnings_of
from pipelit.engine.definition import END, FLOW_LABELS, EdgeDef, NodeDef, flow_targets
from pipelit.engine.edges import NodeTypes, rule_violation
from pipelit.engine.operators import OPERATORS
from pipelit.engine.structure import Flow, graph_errors


class Report(msgspec.Struct, frozen=True):
    """What validation found. Warnings never make a workflow invalid."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the workflow may run as it is."""
        return not self.errors


def validate_workflow(
    nodes: Iterable[NodeDef],
    edges: Iterable[EdgeDef],
    origin: Origin = Origin(),  # noqa: B008
) -> Report:
    """Check a whole workflow. An empty workflow is valid."""
    ordered = sorted(nodes, key=lambda node: node.id)
    joined = sorted(edges, key=lambda edge: edge.id)
    return Report(
        errors=tuple(_errors(ordered, joined)),
        warnings=tuple(warnings_of(ordered, joined, origin)),
    )


def validate_scope(
    nodes: Iterable[NodeDef], edges: Iterable[EdgeDef], scope: Collection[str]
) -> tuple[str, ...]:
    """Return the errors among the nodes named by *scope*; everything else is ignored.

    Args:
        nodes: the whole workflow, so that an edge to a node that is elsewhere is not dangling.
        edges: the whole workflow.
        scope: ids of the nodes one execution uses, attached ones and its trigger included.
    """
    scope = frozenset(scope)
    everything = sorted(nodes, key=lambda node: node.id)
    known = {node.node_id for node in everything}
    inside = [node for node in everything if node.node_id in scope]
    joined = [
        edge
        for edge in sorted(edges, key=lambda edge: edge.id)
        if edge.source_node_id in scope
        and (edge.target_node_id in scope or edge.target_node_id not in known)
    ]
    return tuple(_errors(inside, joined))


def _errors(nodes: Sequence[NodeDef], edges: Sequence[EdgeDef]) -> list[str]:
    types = {node.node_id: node.component_type for node in nodes}
    found = [error for edge in edges for error in _edge_errors(edge, types)]
    wiring = _wiring(edges)
    found += [error for node in nodes for error in _node_errors(node, wiring)]
    return found + graph_errors(Flow(nodes, edges))


class _Wiring(msgspec.Struct, frozen=True):
    """What touches each node. `attached`: `{node_id: labels of the edges that enter it}`."""

    attached: Mapping[str, set[str]]
    walked: Collection[str]


def _wiring(edges: Sequence[EdgeDef]) -> _Wiring:
    attached: dict[str, set[str]] = {}
    walked: set[str] = set()
    for edge in edges:
        attached.setdefault(edge.target_node_id, set()).add(edge.edge_label)
        if edge.edge_label in FLOW_LABELS:
            walked.update((edge.source_node_id, *flow_targets(edge)))
    return _Wiring(attached, walked)


def _edge_errors(edge: EdgeDef, types: NodeTypes) -> list[str]:
    source, target = edge.source_node_id, edge.target_node_id
    found = []
    if source not in types:
        found.append(f"Edge references unknown source node '{source}'")
    is_known = target in types or (target == END and not edge.edge_label)
    if edge.is_conditional:
        found += _conditional_errors(edge, types)
    elif target and not is_known:
        found.append(f"Edge references unknown target node '{target}'")
    if not found and (message := rule_violation(edge, types)):
        found.append(f"Edge {source} → {target}: {message}")
    return found


def _conditional_errors(edge: EdgeDef, types: NodeTypes) -> Iterator[str]:
    source, target = edge.source_node_id, edge.target_node_id
    if not edge.condition_value:
        yield f"Conditional edge from '{source}' is missing condition_value"
    if not target:
        yield f"Conditional edge from '{source}' is missing target_node_id"
    elif target not in types and target != END:
        yield f"Conditional edge from '{source}' targets unknown node '{target}'"
    component_type = types.get(source, "switch")
    if component_type != "switch":
        yield (
            f"Conditional edge from '{source}' ({component_type}): "
            "only 'switch' nodes can have conditional edges"
        )


def _node_errors(node: NodeDef, wiring: _Wiring) -> Iterator[str]:
    spec = specs.spec_of(node.component_type)
    if spec is None:
        return
    incoming = wiring.attached.get(node.node_id, set())
    model = spec.slot("model")
    if model and model.mandatory and "llm" not in incoming:
        yield f"Node '{node.node_id}' is missing required 'model' connection"
    if node.component_type == "extractor" and not (
        "output_parser" in incoming or node.extra.get("extraction_schema")
    ):
        yield (
            f"Node '{node.node_id}' (extractor) requires "
            "an output_parser connection or an extraction_schema"
        )
    if node.component_type in ("switch", "filter"):
        yield from _rule_errors(node)
    # The engine walks a dual node when a flow edge touches it or a run may begin there.
    if spec.role != "dual" or node.is_entry_point or node.node_id in wiring.walked:
        for key in spec.required_as_step:
            if _is_missing(node, key):
                yield f"Node '{node.node_id}' ({node.component_type}): '{key}' is required"


def _rule_errors(node: NodeDef) -> Iterator[str]:
    rules: Any = node.extra.get("rules")
    for index, rule in enumerate(rules if isinstance(rules, list) else [], start=1):
        if not isinstance(rule, dict):
            yield f"Node '{node.node_id}': Rule {index} must be an object"
            continue
        operator = rule.get("operator") or "equals"
        if not isinstance(operator, str) or operator not in OPERATORS:
            yield f"Node '{node.node_id}': unknown operator '{operator}'"


def _is_missing(node: NodeDef, key: str) -> bool:
    if key == "target_workflow" and node.subworkflow_id is not None:
        return False
    value = node.extra.get(key)
    return value is None or (isinstance(value, str) and not value.strip())

"""Warnings: what is probably not meant, in a workflow that may still run.

Contract: engine.md §4.2, second table; its rows are the functions below, in order.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pipelit.engine import specs
from pipelit.engine.definition import EdgeDef, NodeDef, flow_targets
from pipelit.engine.structure import Flow

_TRIGGER_TEMPLATE = re.compile(r"\{\{\s*trigger\b")
_NOT_BARE = re.compile(r"-|^\d")
_ALWAYS_POSSIBLE = frozenset({"__other__", "default"})
_SUBAGENT_KEYS = ("name", "description", "system_prompt")


class Origin(msgspec.Struct, frozen=True):
    """Which stored workflow is checked, so that a call of itself is seen. Empty if none."""

    workflow_id: int | None = None
    slug: str | None = None


class _Subject(msgspec.Struct, frozen=True):
    """A workflow as the rows below look at it, nodes and edges in row order."""

    nodes: Sequence[NodeDef]
    edges: Sequence[EdgeDef]
    origin: Origin

    def of_type(self, component_type: str) -> list[NodeDef]:
        return [node for node in self.nodes if node.component_type == component_type]

    def type_of(self, node_id: str) -> str | None:
        return next((n.component_type for n in self.nodes if n.node_id == node_id), None)

    def conditional_from(self, node_id: str) -> list[EdgeDef]:
        return [e for e in self.edges if e.is_conditional and e.source_node_id == node_id]


def warnings_of(
    nodes: Sequence[NodeDef], edges: Sequence[EdgeDef], origin: Origin
) -> Iterator[str]:
    """Yield every warning, row by row, within a row in the order of nodes or edges."""
    subject = _Subject(nodes, edges, origin)
    for row in (
        _routes_without_edge,
        _edges_without_rule,
        _unreachable,
        _several_models,
        _empty_loops,
        _ignored_direct_edges,
        _templates_in_code,
        _incomplete_subagents,
        _calls_of_itself,
        _awkward_ids,
    ):
        yield from row(subject)


def _routes_without_edge(subject: _Subject) -> Iterator[str]:
    for switch in subject.of_type("switch"):
        edges = subject.conditional_from(switch.node_id)
        served = {edge.condition_value for edge in edges}
        served |= set((edges[0].condition_mapping or {}) if edges else {})
        for route in _routes(switch):
            if route not in served:
                yield f"Node '{switch.node_id}': no edge for route '{route}'"


def _edges_without_rule(subject: _Subject) -> Iterator[str]:
    switches = {node.node_id: node for node in subject.of_type("switch")}
    for edge in subject.edges:
        switch = switches.get(edge.source_node_id)
        # A switch without rules emits whatever the state holds, so every value is possible.
        if not edge.is_conditional or switch is None or not _rules(switch):
            continue
        possible = {*_routes(switch), switch.extra.get("default_route"), *_ALWAYS_POSSIBLE}
        if edge.condition_value and edge.condition_value not in possible:
            yield (
                f"Conditional edge from '{edge.source_node_id}': "
                f"no rule produces '{edge.condition_value}'"
            )


def _unreachable(subject: _Subject) -> Iterator[str]:
    triggers = [node.node_id for node in subject.nodes if specs.is_trigger(node.component_type)]
    reached = Flow(subject.nodes, subject.edges).reachable(triggers)
    entered = {
        target
        for edge in subject.edges
        if edge.edge_label in ("", "loop_body", "loop_return")
        for target in flow_targets(edge)
    }
    for node in subject.nodes:
        is_walked = not (
            specs.is_trigger(node.component_type)
            or specs.is_attach_only(node.component_type)
            or (specs.is_dual(node.component_type) and node.node_id not in entered)
        )
        if is_walked and node.node_id not in reached:
            yield f"Node '{node.node_id}' is not reachable from any trigger"


def _several_models(subject: _Subject) -> Iterator[str]:
    models = Counter(edge.target_node_id for edge in subject.edges if edge.edge_label == "llm")
    for node in subject.nodes:
        if models[node.node_id] > 1:
            yield f"Node '{node.node_id}' has more than one model; the first one is used"


def _empty_loops(subject: _Subject) -> Iterator[str]:
    with_body = {edge.source_node_id for edge in subject.edges if edge.edge_label == "loop_body"}
    for loop in subject.of_type("loop"):
        if loop.node_id not in with_body:
            yield f"Loop '{loop.node_id}' has no body"


def _ignored_direct_edges(subject: _Subject) -> Iterator[str]:
    for switch in subject.of_type("switch"):
        direct = any(
            edge.source_node_id == switch.node_id
            and not (edge.is_conditional or edge.edge_label)
            and subject.type_of(edge.target_node_id) != "error_handler"
            for edge in subject.edges
        )
        if direct and subject.conditional_from(switch.node_id):
            yield f"Direct edges of switch '{switch.node_id}' are ignored"


def _templates_in_code(subject: _Subject) -> Iterator[str]:
    for node in subject.nodes:
        code = node.extra.get("code")
        is_text = node.extra.get("language") == "template"
        if isinstance(code, str) and not is_text and _TRIGGER_TEMPLATE.search(code):
            yield f"Node '{node.node_id}': use the variable trigger instead of a template in code"


def _incomplete_subagents(subject: _Subject) -> Iterator[str]:
    for node in subject.of_type("deep_agent"):
        subagents: Any = node.extra.get("subagents")
        for index, entry in enumerate(subagents if isinstance(subagents, list) else [], start=1):
            for key in _SUBAGENT_KEYS:
                if not (isinstance(entry, dict) and entry.get(key)):
                    yield f"Node '{node.node_id}': subagent {index} has no '{key}'"


def _calls_of_itself(subject: _Subject) -> Iterator[str]:
    slug, workflow_id = subject.origin.slug, subject.origin.workflow_id
    for node in subject.of_type("workflow"):
        target = node.extra.get("target_workflow")
        by_slug = bool(target) and target == slug
        by_id = not target and workflow_id is not None and node.subworkflow_id == workflow_id
        if by_slug or by_id:
            yield f"Node '{node.node_id}' calls its own workflow"


def _awkward_ids(subject: _Subject) -> Iterator[str]:
    for node in subject.nodes:
        if _NOT_BARE.search(node.node_id):
            yield (
                f"Node id '{node.node_id}' can only be used as nodes['{node.node_id}'] in templates"
            )


def _rules(switch: NodeDef) -> list[dict[str, Any]]:
    rules: Any = switch.extra.get("rules")
    return [rule for rule in rules if isinstance(rule, dict)] if isinstance(rules, list) else []


def _routes(switch: NodeDef) -> list[str]:
    named = (rule.get("id") or rule.get("route") for rule in _rules(switch))
    return list(dict.fromkeys(str(route) for route in named if route))

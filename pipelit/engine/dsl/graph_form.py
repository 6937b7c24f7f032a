"""The graph form: nodes and edges as they are. Contract: engine.md §27.5."""

import re
from collections.abc import Mapping
from typing import Any, get_args

from pipelit.engine.definition import EdgeDef, EdgeType, NodeDef
from pipelit.engine.dsl.document import Head, parse_head
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import ParseError
from pipelit.engine.edges import EDGE_LABELS
from pipelit.engine.specs import COMPONENT_TYPES, complete_config, spec_of

_NODE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}")
_MAX_LINK = 2**63 - 1

_TOP_KEYS = frozenset({"workflow", "name", "description", "tags", "nodes", "edges"})
_HEAD_KEYS = frozenset({"name", "description", "tags", "max_execution_seconds"})
_NODE_KEYS = frozenset(
    {"id", "type", "label", "position", "config", "interrupt_before", "interrupt_after"}
    | {"is_entry_point", "subworkflow_id", "code_block_id"}
)
_EDGE_KEYS = frozenset(
    {"source", "target", "type", "label", "condition_value", "condition_mapping", "priority"}
)


def parse_graph_head(raw: Mapping[str, Any]) -> Head:
    """Read what the document says about the workflow: below `workflow`, or at the top.

    Raises:
        ParseError: the name is missing.
    """
    nested = _nested(raw)
    return parse_head({**raw, **nested}, nested.get("max_execution_seconds"))


def _nested(raw: Mapping[str, Any]) -> dict[str, Any]:
    nested = raw.get("workflow")
    return nested if isinstance(nested, dict) else {}


def build_graph_form(raw: Mapping[str, Any]) -> Draft:
    """Build what a document with `nodes` describes.

    Raises:
        ParseError: an entry is not what it should be.
        BuildError: two nodes have one id.
    """
    draft = Draft()
    draft.warn_unknown("", raw, _TOP_KEYS)
    draft.warn_unknown("`workflow`", _nested(raw), _HEAD_KEYS)
    for position, entry in enumerate(_entries(raw, "nodes"), start=1):
        node = _node(entry, position)
        draft.add_node(node)
        draft.warn_unknown(f"Node '{node.node_id}'", entry, _NODE_KEYS)
    for position, entry in enumerate(_entries(raw, "edges"), start=1):
        draft.add_edge(_edge(entry, position))
        draft.warn_unknown(f"Edge {position}", entry, _EDGE_KEYS)
    return draft


def _entries(raw: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = raw.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ParseError(f"`{key}` must be a list of mappings")
    return entries


def _node(entry: Mapping[str, Any], position: int) -> NodeDef:
    component_type = entry.get("type")
    if component_type is None:
        raise ParseError(f"Node {position} missing `type` field")
    if not isinstance(component_type, str) or spec_of(component_type) is None:
        valid = ", ".join(COMPONENT_TYPES)
        raise ParseError(f"Unknown node type '{component_type}' in node {position}. Valid: {valid}")
    node_id = str(entry.get("id") or f"{component_type}_{position}")
    if not _NODE_ID.fullmatch(node_id):
        raise ParseError(f"Invalid node ID '{node_id}' in node {position}")
    config, place = entry.get("config") or {}, entry.get("position") or {}
    if not isinstance(config, dict) or not isinstance(place, dict):
        raise ParseError(f"`config` and `position` must be mappings in node {position}")
    label = entry.get("label")
    is_question = component_type == "human_confirmation"
    return NodeDef(
        id=position,
        node_id=node_id,
        component_type=component_type,
        label=None if label is None else str(label),
        is_entry_point=bool(entry.get("is_entry_point")),
        interrupt_before=is_question or bool(entry.get("interrupt_before")),
        interrupt_after=bool(entry.get("interrupt_after")),
        config=complete_config(component_type, config),
        subworkflow_id=_link(entry, "subworkflow_id", position),
        position_x=_number(place.get("x"), position),
        position_y=_number(place.get("y"), position),
        code_block_id=_link(entry, "code_block_id", position),
    )


def _link(entry: Mapping[str, Any], key: str, position: int) -> int | None:
    value = entry.get(key)
    if value is not None and (type(value) is not int or not 1 <= value <= _MAX_LINK):
        raise ParseError(f"`{key}` must be the id of a row in node {position}")
    return value


def _edge(entry: Mapping[str, Any], position: int) -> EdgeDef:
    mapping = entry.get("condition_mapping")
    if mapping is not None and not isinstance(mapping, dict):
        raise ParseError(f"`condition_mapping` must be a mapping in edge {position}")
    return EdgeDef(
        id=position,
        source_node_id=str(entry.get("source") or ""),
        target_node_id=str(entry.get("target") or ""),
        edge_type=_one_of(get_args(EdgeType), entry.get("type") or "direct", "type", position),
        edge_label=_one_of(EDGE_LABELS, entry.get("label") or "", "label", position),
        condition_mapping=mapping,
        condition_value=str(entry.get("condition_value") or ""),
        priority=_number(entry.get("priority"), position),
    )


def _one_of(valid: tuple[Any, ...], value: object, key: str, position: int) -> Any:
    if value not in valid:
        listed = ", ".join(word or "''" for word in valid)
        raise ParseError(f"Unknown edge {key} '{value}' in edge {position}. Valid: {listed}")
    return value


def _number(value: object, position: int) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParseError(f"Entry {position} has a position or priority that is no number")
    return round(value)

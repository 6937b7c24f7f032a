"""A workflow becomes a document in graph form that compiles to the same workflow again.

What a reader of the document would take for granted is not written: defaults, empty values.

Contract: engine.md §27.5.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import yaml

from pipelit.engine.definition import EdgeDef, NodeDef
from pipelit.engine.dsl.document import Head
from pipelit.engine.dsl.errors import BuildError, ParseError
from pipelit.engine.dsl.source import load_mapping
from pipelit.engine.specs import CONFIG_DEFAULTS, kept_fields

_WIDTH = 100
_OTHER_BREAKS = "\r\x85\u2028\u2029"
_ALWAYS_ASKS = "human_confirmation"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and nothing as a reference to something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # lists stand below their key, not beside it


class _OneLine(dict[str, Any]):
    """A mapping that reads better in one line."""


def _one_line(dumper: yaml.SafeDumper, value: _OneLine) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value.strip("\n") else None
    if any(character in value for character in _OTHER_BREAKS):
        style = '"'  # PyYAML reads these back as spaces or line feeds wherever they are not escaped
    # It writes a quoted text by itself wherever a block could not hold the value.
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_OneLine, _one_line)


def write_document(head: Head, nodes: Iterable[NodeDef], edges: Iterable[EdgeDef]) -> str:
    """Write a workflow down, its nodes and edges in row order.

    Raises:
        BuildError: nobody could read it back, because it is too long or nested too deeply.
    """
    ordered = sorted(nodes, key=lambda node: node.id)
    joined = sorted(edges, key=lambda edge: edge.id)
    raw = {
        "workflow": _written(head),
        "nodes": [_node(node) for node in ordered],
        "edges": [_edge(edge) for edge in joined],
    }
    text = yaml.dump(raw, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    try:
        load_mapping(text)
    except ParseError as error:
        raise BuildError(f"The workflow makes no document: {error}") from None
    return text


def _written(head: Head) -> dict[str, Any]:
    raw = msgspec.structs.asdict(head) | {"tags": list(head.tags)}
    return {key: value for key, value in raw.items() if value not in ("", [], None)}


def _node(node: NodeDef) -> dict[str, Any]:
    raw: dict[str, Any] = {"id": node.node_id, "type": node.component_type}
    if node.label is not None:
        raw["label"] = node.label
    if node.position_x or node.position_y:
        raw["position"] = _OneLine(x=node.position_x, y=node.position_y)
    if node.interrupt_before and node.component_type != _ALWAYS_ASKS:
        raw["interrupt_before"] = True
    for flag in ("interrupt_after", "is_entry_point"):
        if getattr(node, flag):
            raw[flag] = True
    for link in ("subworkflow_id", "code_block_id"):
        if getattr(node, link) is not None:
            raw[link] = getattr(node, link)
    config = _config(node)
    return raw | ({"config": config} if config else {})


def _config(node: NodeDef) -> Mapping[str, Any]:
    kept = kept_fields(node.component_type)
    return {
        field: node.config[field]
        for field, default in CONFIG_DEFAULTS.items()
        # By type as well, for 0 is not False to whoever reads it.
        if field in kept
        and field in node.config
        and (type(node.config[field]), node.config[field]) != (type(default), default)
    }


def _edge(edge: EdgeDef) -> dict[str, Any]:
    raw = _OneLine(source=edge.source_node_id, target=edge.target_node_id)
    if edge.is_conditional:
        raw["type"] = edge.edge_type
    if edge.edge_label:
        raw["label"] = edge.edge_label
    if edge.condition_value:
        raw["condition_value"] = edge.condition_value
    if edge.condition_mapping is not None:
        raw["condition_mapping"] = edge.condition_mapping
    if edge.priority:
        raw["priority"] = edge.priority
    return raw

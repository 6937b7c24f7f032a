"""Where a list node finds its items. Contract: engine.md §13.1."""

from typing import Any

import msgspec

from pipelit.engine.outcome import Warning_
from pipelit.engine.paths import split_path, walk
from pipelit.engine.values import parse_json_container
from pipelit.nodes.base import NodeCall

_NO_SOURCE: Warning_ = {
    "code": "loop_no_source",
    "message": "No source_node is set and the predecessors give no list",
}


class Items(msgspec.Struct, frozen=True):
    """The items of a list node, and what was odd about finding them."""

    items: list[Any]
    warnings: tuple[Warning_, ...] = ()


def find_items(call: NodeCall, *, field: str | None = None, otherwise: Any = None) -> Items:
    """Resolve `source_node` and `field` of a list node, leniently.

    Args:
        field: what to read of the source, instead of the configured `field`.
        otherwise: the value used when no source is set and the predecessors give nothing.
    """
    if field is None:
        field = str(call.extra.get("field") or "")
    source = call.extra.get("source_node")
    if source:
        return Items(as_list(read_output(call, str(source), field)))
    value = None
    if len(call.predecessors) == 1:
        value = read_output(call, call.predecessors[0], field)
        # A trigger carries many things; only what is meant as a list is one.
        if is_trigger(call, call.predecessors[0]) and _find_list(value) is None:
            value = None
    if value is None and otherwise is not None:
        value = otherwise
    if value is None:
        return Items([], (_NO_SOURCE,))
    return Items(as_list(value))


def read_output(call: NodeCall, node_id: str, field: str = "") -> Any:
    """Return what another node gave out: its port or path *field*, or its primary value.

    None if the node did not run or has no such port.
    """
    ports = call.state["node_outputs"].get(node_id)
    if ports is None:
        return None
    primary = ports.get(call.primary_ports.get(node_id))
    if not field:
        return primary
    segments = split_path(field)
    found = walk(ports, segments)
    if found is msgspec.UNSET:
        found = walk(primary, segments)
    return None if found is msgspec.UNSET else found


def is_trigger(call: NodeCall, node_id: str) -> bool:
    """Tell whether a node with outputs is the firing trigger: it alone was never walked."""
    return node_id not in call.state["node_results"]


def as_list(value: Any) -> list[Any]:
    """Return the list *value* is or holds as JSON text; nothing of null, else a list of one."""
    found = _find_list(value)
    if found is not None:
        return found
    return [] if value is None else [value]


def _find_list(value: Any) -> list[Any] | None:
    container = parse_json_container(value) if isinstance(value, str) else value
    return container if isinstance(container, list) else None

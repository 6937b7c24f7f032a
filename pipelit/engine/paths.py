"""Dotted paths into execution state and list items. Contract: operators.md §3."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipelit.engine.values import parse_json_container


def read_state_path(state: Mapping[str, Any], path: str) -> Any:
    """Return the value *path* names in a state object, None when missing or empty.

    A first segment that is no state key may be a node id, or a key of the trigger.
    """
    segments = split_path(path.strip().removeprefix("{{").removesuffix("}}").strip())
    if segments[:1] == ["state"]:
        segments = segments[1:]
    if not segments:
        return None
    node_outputs = state.get("node_outputs") or {}
    found = walk(state, segments)
    if segments[0] not in state and segments[0] in node_outputs:
        found = walk(node_outputs, segments)
    if found is msgspec.UNSET:
        found = walk(state.get("trigger"), segments)
    return None if found is msgspec.UNSET else found


def read_item_path(item: Any, path: str) -> Any:
    """Return the value *path* names in a list item.

    The item itself when the path is empty or the item is no object; None when missing.
    """
    segments = split_path(path)
    if not segments or not isinstance(item, dict):
        return item
    found = walk(item, segments)
    return None if found is msgspec.UNSET else found


def split_path(path: str) -> list[str]:
    """Return the segments of a path; none of an empty one."""
    return path.split(".") if path else []


def walk(value: Any, segments: list[str]) -> Any:
    """Follow *segments* from *value*; `msgspec.UNSET` when one of them leads nowhere.

    Texts on the way that hold a JSON object or list are opened.
    """
    for segment in segments:
        container = parse_json_container(value) if isinstance(value, str) else value
        value = _step(container, segment)
        if value is msgspec.UNSET:
            break
    return value


def _step(container: Any, segment: str) -> Any:
    if isinstance(container, Mapping):
        return container.get(segment, msgspec.UNSET)
    if isinstance(container, list) and segment.isascii() and segment.isdigit():
        # No list has a position of more than 9 digits, and int() would be slow on a long one.
        index = int(segment[:10])
        return container[index] if index < len(container) else msgspec.UNSET
    return msgspec.UNSET

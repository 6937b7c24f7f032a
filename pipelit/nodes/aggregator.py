"""The `aggregator`: one value computed from a list. Contract: node-types.md §10.8."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pipelit.engine.outcome import Outcome, Report, Warning_
from pipelit.engine.paths import read_item_path
from pipelit.engine.values import to_number, to_text
from pipelit.nodes.base import NodeCall, config_error
from pipelit.nodes.items import find_items

Number = int | float


class _Work(msgspec.Struct, frozen=True):
    """What an operation works on. `values`: what the field names in each item."""

    items: list[Any]
    values: list[Any]
    separator: str

    @property
    def numbers(self) -> list[Number]:
        return [number for value in self.values if (number := to_number(value)) is not None]


async def aggregator(call: NodeCall) -> Outcome:
    """Compute the configured operation over the items of the source.

    Raises:
        NodeError: `ConfigError`; there is no such operation.
    """
    name = to_text(call.extra.get("operation")) or "list"
    operation = _OPERATIONS.get(name)
    if operation is None:
        raise config_error(f"Unknown aggregator operation '{name}'")
    found = find_items(call, field="")
    items = _unwrap(found.items, call.primary_ports)
    field = to_text(call.extra.get("field"))
    separator = call.extra.get("separator")
    work = _Work(
        items=items,
        values=[read_item_path(item, field) for item in items],
        separator="\n" if separator is None else to_text(separator),
    )
    warnings = (*found.warnings, *_skipped(name, work))
    return Outcome(ports={"aggregated": operation(work)}, report=Report(warnings=warnings))


def _unwrap(items: list[Any], primary_ports: Mapping[str, str]) -> list[Any]:
    """Return the primary values of a loop's results, and any other list as it is."""
    if not all(_is_result(item, primary_ports) for item in items):
        return items
    unwrapped = []
    for item in items:
        ((node_id, ports),) = item.items()
        unwrapped.append(ports.get(primary_ports[node_id]))
    return unwrapped


def _is_result(item: Any, primary_ports: Mapping[str, str]) -> bool:
    if not isinstance(item, dict) or len(item) != 1:
        return False
    ((node_id, ports),) = item.items()
    return node_id in primary_ports and isinstance(ports, dict)


def _skipped(name: str, work: _Work) -> tuple[Warning_, ...]:
    count = len(work.values) - len(work.numbers)
    if name not in _NUMERIC or not count:
        return ()
    return ({"code": "not_numeric", "message": f"{count} item(s) without a number were skipped"},)


def _average(work: _Work) -> Number | None:
    numbers = work.numbers
    return sum(numbers) / len(numbers) if numbers else None


def _unique(work: _Work) -> list[Any]:
    found: dict[str, Any] = {}
    for value in work.values:
        found.setdefault(_identity(value), value)
    return list(found.values())


def _identity(value: Any) -> str:
    """Return the same text for equal JSON values; `1` and `1.0` are equal, `1` and `"1"` not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _group(work: _Work) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for item, value in zip(work.items, work.values, strict=True):
        groups.setdefault(to_text(value), []).append(item)
    return groups


def _first(values: Sequence[Any]) -> Any:
    return values[0] if values else None


_OPERATIONS: Mapping[str, Callable[[_Work], Any]] = {
    "list": lambda work: work.values,
    "concat": lambda work: work.separator.join(map(to_text, work.values)),
    "count": lambda work: len(work.values),
    "sum": lambda work: sum(work.numbers),
    "avg": _average,
    "min": lambda work: min(work.numbers, default=None),
    "max": lambda work: max(work.numbers, default=None),
    "first": lambda work: _first(work.values),
    "last": lambda work: _first(work.values[::-1]),
    "unique": _unique,
    "group_by": _group,
}
_NUMERIC = frozenset({"sum", "avg", "min", "max"})

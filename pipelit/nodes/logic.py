"""Nodes that branch, join and select: `switch`, `router`, `merge`, `filter`.

Contract: node-types.md §10.1, §10.3, §10.4, §5.4.
"""

from collections.abc import Iterable
from typing import Any

import trio

from pipelit.engine.operators import Rule
from pipelit.engine.outcome import Outcome, Report
from pipelit.engine.paths import read_item_path, read_state_path
from pipelit.engine.values import to_text
from pipelit.nodes.base import NodeCall
from pipelit.nodes.items import find_items, is_trigger
from pipelit.nodes.rules import RuleJudge, length_warnings, read_rules

FALLBACK_ROUTE = "__other__"

_ITEMS_BETWEEN_CHECKPOINTS = 200


async def switch(call: NodeCall, *, judge: RuleJudge) -> Outcome:
    """Emit the route of the first rule that is true; without rules, that of a condition."""
    rules = read_rules(call.extra.get("rules"))
    if not rules:
        route = condition_route(call.extra, call.state)
        return Outcome(ports={"route": route}, route=route)
    route = await _first_true(rules, call.state, judge) or _fallback(call.extra)
    return Outcome(
        ports={"route": route}, route=route, report=Report(warnings=length_warnings(rules))
    )


async def _first_true(rules: Iterable[Rule], state: dict[str, Any], judge: RuleJudge) -> str:
    for rule in rules:
        if await judge.holds(rule, read_state_path(state, rule.field)):
            return rule.id
    return ""


def _fallback(extra: dict[str, Any]) -> str:
    default = to_text(extra.get("default_route"))
    return default or (FALLBACK_ROUTE if extra.get("enable_fallback") is True else "")


async def router(call: NodeCall) -> Outcome:
    """Turn a state value into a route, without asking any model."""
    route = condition_route(call.extra, call.state)
    return Outcome(ports={"route": route}, route=route)


def condition_route(extra: dict[str, Any], state: dict[str, Any]) -> str:
    """Turn a state value into a route: its text, or the compared value if they are equal."""
    expression = to_text(extra.get("condition_expression")).strip()
    if not expression:
        return to_text(read_state_path(state, to_text(extra.get("condition_field")) or "route"))
    path, is_comparison, value = expression.partition("==")
    if not is_comparison:
        return to_text(read_state_path(state, expression))
    wanted = _unquoted(value.lstrip())
    return wanted if to_text(read_state_path(state, path.rstrip())) == wanted else ""


def _unquoted(text: str) -> str:
    is_quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text


async def merge(call: NodeCall) -> Outcome:
    """Join the outputs of several nodes into one list or one object."""
    sources = {node: _ports(call, node) for node in _merge_sources(call)}
    present = {node: ports for node, ports in sources.items() if ports}
    if call.extra.get("mode") == "combine":
        return Outcome(ports={"merged": _combined(present)})
    merged: list[Any] = []
    for node, ports in present.items():
        port = call.primary_ports.get(node)
        if port in ports:
            value = ports[port]
            merged.extend(value if isinstance(value, list) else [value])
    return Outcome(ports={"merged": merged})


def _merge_sources(call: NodeCall) -> Iterable[str]:
    outputs = call.state["node_outputs"]
    if call.extra.get("include_all") is True:
        return [node for node in outputs if not is_trigger(call, node)]
    chosen = call.extra.get("source_nodes")
    return map(str, chosen) if isinstance(chosen, list) and chosen else call.predecessors


def _ports(call: NodeCall, node_id: str) -> dict[str, Any]:
    ports: dict[str, Any] = call.state["node_outputs"].get(node_id) or {}
    return ports


def _combined(present: dict[str, dict[str, Any]]) -> dict[str, Any]:
    combined: dict[str, Any] = {}
    for ports in present.values():
        combined.update({name: value for name, value in ports.items() if name != "messages"})
    return combined


async def filter_items(call: NodeCall, *, judge: RuleJudge) -> Outcome:
    """Keep the items for which every rule is true, in their order."""
    rules = read_rules(call.extra.get("rules"))
    found = find_items(call, otherwise=call.state.get("output"))
    kept = []
    for position, item in enumerate(found.items):
        if position % _ITEMS_BETWEEN_CHECKPOINTS == 0:
            await trio.lowlevel.checkpoint()
        if await _passes(item, rules, judge):
            kept.append(item)
    warnings = (*found.warnings, *length_warnings(rules))
    return Outcome(ports={"filtered": kept}, report=Report(warnings=warnings))


async def _passes(item: Any, rules: Iterable[Rule], judge: RuleJudge) -> bool:
    for rule in rules:
        if not await judge.holds(rule, read_item_path(item, rule.field)):
            return False
    return True

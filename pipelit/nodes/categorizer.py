"""The `categorizer`: one model call that names one of the configured categories.

Contract: node-types.md §5.3.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pipelit.engine.outcome import Outcome
from pipelit.engine.values import parse_json_container, to_text
from pipelit.nodes.agent_model import ModelParts
from pipelit.nodes.base import Component, NodeCall
from pipelit.nodes.memory import Memory, read_options
from pipelit.nodes.parsing import OutputParsing
from pipelit.nodes.questions import Questioner, open_questioner

NO_CATEGORY = "unknown"

_NAMED = re.compile(r'"category"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)


class Category(msgspec.Struct, frozen=True):
    """One of the configured categories."""

    name: str
    description: str


@dataclass(frozen=True, kw_only=True)
class CategorizerParts:
    """What categorizers are built from."""

    models: ModelParts
    parsing: OutputParsing
    memory: Memory


def categorizer_component(parts: CategorizerParts) -> Component:
    """Return the component of type `categorizer`."""

    async def categorizer(call: NodeCall) -> Outcome:
        categories = read_categories(call.extra.get("categories"))
        questioner = await open_questioner(call, parts.models)
        system = await _system_prompt(call, categories, questioner, parts.memory)
        raw = await questioner.ask(system, [questioner.message("user", questioner.question)])
        parsed = await parts.parsing.parse(call, raw)
        if parsed is not None:
            questioner.warn(*parsed.warnings)
        names = [category.name for category in categories]
        category = find_category(raw, names, parsed=None if parsed is None else parsed.value)
        if category is None:
            category = _fallback(call, names, questioner)
        return Outcome(
            ports={"category": category, "raw": raw}, route=category, report=questioner.report()
        )

    return categorizer


def read_categories(raw: Any) -> list[Category]:
    """Return the categories of a config, in order; entries without a name do not count."""
    entries = [entry for entry in raw if isinstance(entry, dict)] if isinstance(raw, list) else []
    found = [
        Category(to_text(entry.get("name")).strip(), to_text(entry.get("description")))
        for entry in entries
    ]
    return [category for category in found if category.name]


def find_category(raw: str, names: Sequence[str], *, parsed: Any = None) -> str | None:
    """Return the category an answer names, however it does so; None if it names none. Pure.

    Args:
        parsed: what the attached parser made of the answer.
    """
    for candidate in _candidates(raw, parsed):
        if isinstance(candidate, str) and candidate.strip() in names:
            return candidate.strip()
    lowered = raw.lower()
    by_length = sorted(names, key=len, reverse=True)
    return next((name for name in by_length if name.lower() in lowered), None)


def _candidates(raw: str, parsed: Any) -> Iterator[Any]:
    yield parsed.get("category") if isinstance(parsed, dict) else parsed
    whole = parse_json_container(raw)
    if isinstance(whole, dict):
        yield whole.get("category")
    for found in _NAMED.finditer(raw):
        try:
            yield json.loads(found[1], strict=False)
        except ValueError:
            continue


def _fallback(call: NodeCall, names: Sequence[str], questioner: Questioner) -> str:
    chosen = to_text(call.extra.get("fallback_category"))
    category = (chosen or names[0]) if names else NO_CATEGORY
    message = f"The model's answer names no category; '{category}' is taken."
    questioner.warn({"code": "category_fallback", "message": message})
    return category


async def _system_prompt(
    call: NodeCall, categories: Sequence[Category], questioner: Questioner, memory: Memory
) -> str:
    listed = "\n".join(f"- {category.name}: {category.description}" for category in categories)
    instruction = (
        "Assign the user's message to exactly one of these categories:\n"
        f"{listed}\n\n"
        'Answer only with {"category": "<name>"}, nothing else.'
    )
    facts = await _known_facts(call, questioner.question, memory)
    parts = (call.config.get("system_prompt") or "", instruction, facts)
    return "\n\n".join(part for part in parts if part)


async def _known_facts(call: NodeCall, text: str, memory: Memory) -> str:
    for node, config in call.attached.tools:
        if node.component_type != "memory_read":
            continue
        options = read_options(config)
        facts = await memory.search_facts(
            text, limit=options.limit, min_confidence=options.min_confidence
        )
        lines = (f"- {fact.key}: {to_text(fact.value)}" for fact in facts)
        return "\n".join(["Known facts:", *lines]) if facts else ""
    return ""

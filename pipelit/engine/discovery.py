"""How well a workflow fits a need. Pure. Contract: engine.md §28."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

_LISTS = ("triggers", "node_types", "tools", "tags")
_TEXTS = ("description", "model_capability")
_TRIGGER = "trigger_"
_REUSE, _FORK = 0.95, 0.5
_BONUS, _ENOUGH_WORDS = 0.05, 0.6


class BadRequirements(Exception):
    """What was asked for makes no sense; the text says why."""


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow should have. Trigger types are full names."""

    triggers: tuple[str, ...] = ()
    node_types: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    description: str = ""
    model_capability: str = ""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that may be called, with what it can do and how its runs ended."""

    workflow_id: int
    slug: str
    name: str
    description: str
    tags: tuple[str, ...]
    triggers: tuple[str, ...]
    node_types: tuple[str, ...]
    tools: tuple[str, ...]
    model_names: tuple[str, ...]
    completed: int = 0
    failed: int = 0
    executions: int = 0


def read_requirements(raw: object) -> Requirements:
    """Read what a model asks for.

    Raises:
        BadRequirements: it is no object, or a part of it has the wrong form.
    """
    if not isinstance(raw, dict):
        raise BadRequirements("requirements must be a JSON object")
    fields: dict[str, Any] = {}
    for name in _LISTS:
        value = raw.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadRequirements(f"{name} must be a list of strings")
        fields[name] = tuple(dict.fromkeys(value))
    for name in _TEXTS:
        value = raw.get(name) or ""
        if not isinstance(value, str):
            raise BadRequirements(f"{name} must be a string")
        fields[name] = value
    fields["triggers"] = tuple(dict.fromkeys(map(_full_name, fields["triggers"])))
    return Requirements(**fields)


def rank(wanted: Requirements, candidates: Iterable[Candidate], limit: int) -> list[dict[str, Any]]:
    """Return the result rows of the best *limit* candidates, the best first."""
    rows = [describe(wanted, candidate) for candidate in candidates]
    return sorted(rows, key=lambda row: (-row["score"], row["slug"]))[:limit]


def describe(wanted: Requirements, found: Candidate) -> dict[str, Any]:
    """Return the result row of one candidate."""
    score = round(score_of(wanted, found), 4)
    parts = ("triggers", "node_types", "tools")
    pairs = {part: (getattr(wanted, part), getattr(found, part)) for part in parts}
    return {
        "workflow_id": found.workflow_id,
        "slug": found.slug,
        "name": found.name,
        "description": found.description,
        "tags": list(found.tags),
        "score": score,
        "recommendation": recommend(score),
        "capabilities": {
            **{part: list(has) for part, (_, has) in pairs.items()},
            "model_names": list(found.model_names),
        },
        "gaps": {part: _without(needs, has) for part, (needs, has) in pairs.items()},
        "extra": {part: _without(has, needs) for part, (needs, has) in pairs.items()},
        "success_rate": _success_rate(found),
        "execution_count": found.executions,
    }


def recommend(score: float) -> str:
    """Return what to do with a workflow of this score."""
    if score >= _REUSE:
        return "reuse"
    return "fork_and_patch" if score >= _FORK else "create_new"


def score_of(wanted: Requirements, found: Candidate) -> float:
    """Return how well a candidate fits, 0 to 1."""
    rate = _success_rate(found)
    base = (
        0.8 * _coverage(wanted, found)
        + 0.1 * _similarity(wanted.tags, found.tags)
        + 0.1 * (0.5 if rate is None else rate)
    )
    return min(1.0, base + (_BONUS if _speaks_of(wanted.description, found) else 0.0))


def _coverage(wanted: Requirements, found: Candidate) -> float:
    needed = [
        *((item, found.triggers) for item in wanted.triggers),
        *((item, found.node_types) for item in wanted.node_types),
        *((item, found.tools) for item in wanted.tools),
    ]
    hits = [item in has for item, has in needed]
    if wanted.model_capability:
        text = wanted.model_capability.lower()
        hits.append(any(text in name.lower() for name in found.model_names))
    return sum(hits) / len(hits) if hits else 1.0


def _similarity(wanted: Sequence[str], has: Sequence[str]) -> float:
    if not wanted:
        return 1.0
    return len({*wanted} & {*has}) / len({*wanted} | {*has})


def _success_rate(found: Candidate) -> float | None:
    ended = found.completed + found.failed
    return found.completed / ended if ended else None


def _speaks_of(description: str, found: Candidate) -> bool:
    text = description.strip().lower()
    if not text:
        return False
    if text in found.description.lower():
        return True
    words = {word for word in re.findall(r"\w+", text) if len(word) >= 4}
    said = " ".join((found.name, found.description, *found.tags)).lower()
    return bool(words) and sum(word in said for word in words) >= _ENOUGH_WORDS * len(words)


def _full_name(trigger: str) -> str:
    return trigger if trigger.startswith(_TRIGGER) else f"{_TRIGGER}{trigger}"


def _without(items: Sequence[str], others: Sequence[str]) -> list[str]:
    return [item for item in items if item not in others]

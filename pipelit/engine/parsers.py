"""How a model's text becomes data: the parsers of `output_parser`. Pure.

Contract: node-types.md §6.2.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from pipelit.engine.values import to_text

# Linear: white space before the value is left to the JSON parser, lest it be divided in many ways.
_FENCED = re.compile(r"```(?:json)?(.*?)```", re.DOTALL | re.IGNORECASE)
# Without the space after it, a sign or a dot is part of the text: `-5`, `*bold*`, `1.5 l`.
_MARKER = re.compile(r"(?:[-*+]|\d+\.)(?:\s+|$)|(?:•|\d+\))\s*")


class FindAll(msgspec.Struct, frozen=True):
    """The parse is every match of a pattern, which only a killable worker may look for."""

    pattern: str


Parse: TypeAlias = FindAll | Any


def parse(config: Mapping[str, Any], text: str) -> Parse:
    """Return what a parser with this `extra_config` makes of *text*; never raises.

    A text that does not fit comes back as it is.
    """
    match to_text(config.get("parser_type")) or "json":
        case "json":
            return parse_json(text, otherwise=text)
        case "regex":
            return FindAll(to_text(config.get("pattern")))
        case "list":
            return parse_list(text)
        case _:
            return text


def parse_json(text: str, *, otherwise: Any) -> Any:
    """Return the JSON value a text is, or that of its first fenced block."""
    fenced = _FENCED.search(text)
    for candidate in (text, fenced[1] if fenced else None):
        if candidate is None:
            continue
        try:
            return json.loads(candidate, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            continue
    return otherwise


def parse_list(text: str) -> list[str]:
    """Return one item for each line that is not empty, without its bullet or number."""
    lines = (line.strip() for line in text.splitlines())
    return [item for item in map(_without_marker, lines) if item]


def _without_marker(line: str) -> str:
    found = _MARKER.match(line)
    return line[found.end() :] if found else line


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name}")

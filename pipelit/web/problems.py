"""Turns what a model found wrong into the contract's sentences.

Contract: README.md §4, messages.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipelit.web.models import MAX_INT64, MIN_INT64

Where = Literal["path", "query", "header", "body"]

_TYPE_MESSAGES = {
    "string_type": "must be a string",
    "string_unicode": "must be valid text",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be a boolean",
    "bool_parsing": "must be a boolean",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "mapping_type": "must be an object",
    "list_type": "must be an array",
    "tuple_type": "must be an array",
    "set_type": "must be an array",
}
_LIMIT_MESSAGES = {
    "greater_than_equal": "must be >= {ge}",
    "less_than_equal": "must be <= {le}",
    "greater_than": "must be > {gt}",
    "less_than": "must be < {lt}",
    "string_too_short": "must be at least {min_length} characters",
    "string_too_long": "must be at most {max_length} characters",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "string_pattern_mismatch": "must match {pattern}",
}
_EXPECTED = re.compile(r"'((?:[^'\\]|\\.)*)'|([^\s,']+)")
_UNCLEAN = re.compile("[\x00\ud800-\udfff]")


def explain(error: ValidationError, where: Where, value: object) -> list[str]:
    """Return one sentence for each thing the model found wrong with *value*."""
    found = error.errors(include_url=False)
    return [f"{_place(where, item['loc'], value)}: {_message(item)}" for item in found]


def explain_values(value: object, place: str) -> Iterator[str]:
    """Yield a sentence for each text and integer inside *value* that cannot be stored.

    Contract: README.md §3, "Integers" and "Strings"; free objects are no exception.
    """
    if isinstance(value, str):
        if _UNCLEAN.search(value):
            yield f"{place}: must be valid text"
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        if value > MAX_INT64:
            yield f"{place}: must be <= {MAX_INT64}"
        elif value < MIN_INT64:
            yield f"{place}: must be >= {MIN_INT64}"
    elif isinstance(value, dict):
        for name, item in value.items():
            if _UNCLEAN.search(name):
                yield f"{place}: must be valid text"
            else:
                yield from explain_values(item, f"{place}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from explain_values(item, f"{place}[{index}]")


def _message(item: ErrorDetails) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        return "field required"
    if kind == "union_tag_not_found":
        return "field required"
    if item["input"] is None:
        return "must not be null"
    if kind in _TYPE_MESSAGES:
        return _TYPE_MESSAGES[kind]
    if kind in _LIMIT_MESSAGES:
        return _LIMIT_MESSAGES[kind].format_map(_plain(context))
    if kind in {"literal_error", "enum"}:
        return f"must be one of: {', '.join(_alternatives(context['expected']))}"
    if kind == "union_tag_invalid":
        return f"must be one of: {', '.join(_alternatives(context['expected_tags']))}"
    return item["msg"].removeprefix("Value error, ")


def _plain(context: Mapping[str, Any]) -> dict[str, Any]:
    """Write whole limits without a fraction: `must be >= 1`, not `1.0`."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in context.items()
    }


def _alternatives(expected: str) -> list[str]:
    """Read the values out of pydantic's `'a', 'b' or 'c'`, which keeps the declared order."""
    found = [quoted or bare for quoted, bare in _EXPECTED.findall(expected)]
    return [value for value in found if value != "or"]


def _place(where: Where, location: tuple[int | str, ...], value: object) -> str:
    """Write a location as `body.tags[2]`; steps that only name a member of a union are left out."""
    place: str = where
    current: object = value
    for index, step in enumerate(location):
        if isinstance(step, int):
            place += f"[{step}]"
            current = current[step] if isinstance(current, list) and step < len(current) else None
        elif isinstance(current, dict):
            if step not in current and index < len(location) - 1:
                continue
            place += f".{step}"
            current = current.get(step)
    return place

"""Limits of what a model passes to platform tools, with the contract's texts. Pure.

Contract: node-types.md §8.5, §8.6, §8.10, README.md §8.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pipelit.nodes.json_tools import refused

MAX_NAME, MAX_LONG_TEXT = 255, 100_000
MAX_TAGS, MAX_TAG = 20, 50
MAX_INT64 = 2**63 - 1
MAX_USD = 1_000_000_000_000


def text(description: str, default: str | None = None) -> dict[str, Any]:
    """Return the schema of a text; without a default it is required."""
    more = {} if default is None else {"default": default}
    return {"type": "string", **more, "description": description}


def integer(description: str, default: int | None = None) -> dict[str, Any]:
    """Return the schema of an integer; without a default it is required."""
    more = {} if default is None else {"default": default}
    return {"type": "integer", **more, "description": description}


def maybe(kind: str, description: str) -> dict[str, Any]:
    """Return the schema of something that may be left out."""
    return {"type": [kind, "null"], "default": None, "description": description}


def given(arguments: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return those of the named arguments that were given."""
    return {name: arguments[name] for name in names if arguments.get(name) is not None}


def check_texts(fields: Mapping[str, Any], *, name: str = "title") -> None:
    """Check every text of *fields*; the one called *name* is a name.

    Raises:
        ToolError: one is too long, or the name is blank.
    """
    for field, value in fields.items():
        if not isinstance(value, str):
            continue
        if field == name and not value.strip():
            raise refused(f"{field} must not be blank")
        most = MAX_NAME if field == name else MAX_LONG_TEXT
        if len(value) > most:
            raise refused(f"{field} must be at most {most} characters")


def check_range(fields: Mapping[str, Any], field: str, low: float, high: float = MAX_INT64) -> None:
    """Check a number of *fields*, if it is given.

    Raises:
        ToolError: it is out of range.
    """
    value = fields.get(field)
    if value is None or low <= value <= high:
        return
    raise refused(f"{field} must be {f'<= {high}' if value > high else f'>= {low}'}")


def check_priority(fields: Mapping[str, Any]) -> None:
    """Check a priority, if it is given.

    Raises:
        ToolError: it is none.
    """
    if not 1 <= fields.get("priority", 1) <= 5:
        raise refused("Priority must be between 1 and 5")


def check_status(status: str | None, known: Collection[str]) -> None:
    """Check a status, if it is given.

    Raises:
        ToolError: it is none of *known*.
    """
    if status is not None and status not in known:
        raise refused(f"Invalid status. Must be one of: {', '.join(sorted(known))}")


def split(listed: str) -> list[str]:
    """Return the items of a comma-separated text."""
    return [item.strip() for item in listed.split(",") if item.strip()]


def read_tags(listed: str) -> list[str]:
    """Return the tags of a comma-separated text.

    Raises:
        ToolError: they are too many, or one is too long.
    """
    tags = list(dict.fromkeys(split(listed)))
    if len(tags) > MAX_TAGS:
        raise refused(f"Too many tags specified. Maximum is {MAX_TAGS}.")
    if any(len(tag) > MAX_TAG for tag in tags):
        raise refused(f"tags must be at most {MAX_TAG} characters each")
    return tags


def clamp(limit: int, most: int = 100) -> int:
    """Return a limit within 1 and *most*."""
    return min(max(limit, 1), most)

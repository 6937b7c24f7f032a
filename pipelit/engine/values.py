"""How JSON values are read as text, numbers, instants, truth and lengths.

Every function gives None where the contract says "none". Contract: operators.md §2.
"""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
# `fromisoformat` takes any character between date and time, "+" included.
_ISO = re.compile(r"[0-9W-]+([Tt ].+)?", re.ASCII | re.DOTALL)
_MAX_NUMBER_CHARS = 4000
_TRUE_WORDS = frozenset({"true", "1", "yes"})


def to_text(value: Any) -> str:
    """Return the text of a JSON value: `1.0` is `1`, null is empty, objects are compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def to_number(value: Any) -> int | float | None:
    """Return a finite number; integers stay exact."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _parse_number(value.strip()) if isinstance(value, str) else None


def _parse_number(text: str) -> int | float | None:
    if len(text) > _MAX_NUMBER_CHARS or not _DECIMAL.fullmatch(text):
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None


def to_instant(value: Any) -> datetime | None:
    """Return an aware datetime of an ISO 8601 text or of Unix seconds; UTC without offset."""
    if isinstance(value, str):
        return _parse_instant(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return _EPOCH + timedelta(seconds=value)
    except (OverflowError, ValueError):
        return None


def _parse_instant(text: str) -> datetime | None:
    if not _ISO.fullmatch(text):
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def to_truth(value: Any) -> bool:
    """Return what a value says as a boolean; any text but true, 1, yes is false."""
    if isinstance(value, str):
        return value.strip().lower() in _TRUE_WORDS
    return bool(value)


def to_length(value: Any) -> int | None:
    """Return the characters of a text, the items of a list, the keys of an object."""
    return len(value) if isinstance(value, str | list | dict) else None


def to_integer(value: Any) -> int | None:
    """Return an integer, a float without fraction, or the text of an integer."""
    number = value
    if isinstance(value, str):
        text = value.strip()
        number = int(text) if _INTEGER.fullmatch(text) and len(text) < _MAX_NUMBER_CHARS else None
    if isinstance(number, bool):
        return None
    if isinstance(number, float):
        return int(number) if number.is_integer() else None
    return number if isinstance(number, int) else None


def is_same_json(left: Any, right: Any) -> bool:
    """Compare two JSON values; unlike Python, `true` is not `1`."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            is_same_json(left[key], right[key]) for key in left
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(is_same_json, left, right))
    return bool(left == right)


def parse_json_container(text: str) -> dict[str, Any] | list[Any] | None:
    """Return the object or list a text holds as JSON, or None if it holds anything else."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict | list) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name}")

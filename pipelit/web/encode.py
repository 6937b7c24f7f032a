"""Writes responses as JSON. Contract: README.md §6 for instants: UTC, no offset, no `Z`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

SMALL = 64 * 1024
"""Bytes of JSON, roughly, that are encoded faster than a thread takes them over."""
_ITEM_BYTES = 16  # what a value counts besides its text; an estimate

_PLAIN = frozenset({str, int, float, bool, type(None)})
_encoder = msgspec.json.Encoder()


def encode(value: object) -> bytes:
    """Encode structs, mappings, sequences and scalars; aware datetimes become naive UTC text.

    Raises:
        TypeError: something in it is none of these.
        RecursionError: it is nested too deeply.
    """
    return _encoder.encode(_naive(msgspec.to_builtins(value, builtin_types=(datetime,))))


def is_small(value: object) -> bool:
    """Tell whether *value* makes at most about `SMALL` bytes, looking no further than that."""
    size, left = 0, [value]
    while left:
        item = left.pop()
        size += _ITEM_BYTES
        if isinstance(item, str | bytes):
            size += len(item)
        elif isinstance(item, Mapping):
            size += _ITEM_BYTES * len(item)
            left.extend(item.values() if size <= SMALL else ())
        elif isinstance(item, list | tuple):
            size += _ITEM_BYTES * len(item)
            left.extend(item if size <= SMALL else ())
        elif isinstance(item, msgspec.Struct):
            left.extend(getattr(item, name) for name in item.__struct_fields__)
        if size > SMALL:
            return False
    return True


def _naive(value: Any) -> Any:
    """Return *value*, made of builtins, with naive instants. Most items are left at a glance."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value
    if isinstance(value, Mapping):
        return {k: item if type(item) in _PLAIN else _naive(item) for k, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _PLAIN else _naive(item) for item in value]
    return value

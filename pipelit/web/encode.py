"""Writes responses as JSON. Contract: README.md §6 for instants: UTC, no offset, no `Z`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()


def encode(value: object) -> bytes:
    """Encode structs, mappings, sequences and scalars; aware datetimes become naive UTC text."""
    return _encoder.encode(_naive(msgspec.to_builtins(value, builtin_types=(datetime,))))


def _naive(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value
    if isinstance(value, Mapping):
        return {key: _naive(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_naive(item) for item in value]
    return value

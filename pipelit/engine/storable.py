"""What can be stored of what nodes make: JSON of bounded depth, valid text, 64-bit integers.

A result that cannot be stored is its node's failure, never that of the execution around it.
Contract: README.md §3, engine.md §31.
"""

import re
from typing import Any, TypeVar

import msgspec

from pipelit.engine.outcome import Failure, Outcome, Report

MAX_DEPTH = 100
_MAX_INT = 2**63 - 1
_UNCLEAN = re.compile("[\x00\ud800-\udfff]")
_MAYBE_TOO_LONG = re.compile(rb"\d{19}")
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"

T = TypeVar("T")


def clean_text(text: str) -> str:
    """Replace what no database takes, NUL and lone surrogates, by U+FFFD."""
    return _UNCLEAN.sub("\ufffd", text)


def flaw(value: Any) -> str | None:
    """Say why *value*, JSON data or structs of it, cannot be stored; None if it can."""
    if _is_plainly_sound(value):
        return None
    waiting = [(value, 0)]
    while waiting:  # not recursive: the depth is what is in question
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return _TOO_DEEP
        parts = _parts(item)
        if parts is not None:
            waiting.extend((part, depth + 1) for part in parts)
        elif (found := _flaw_of_leaf(item)) is not None:
            return found
    return None


def cleaned(value: T) -> T:
    """Return *value* with everything that `flaw` would find replaced: for logs and traces."""
    made: T = value if flaw(value) is None else _cleaned(value, MAX_DEPTH)
    return made


def storable(result: Outcome | Failure) -> Outcome | Failure:
    """Return *result* fit to be stored: an outcome that is not becomes a failure.

    Texts of a failure and of the report are cleaned: they are told, not computed with.
    """
    report = cleaned(result.report)
    if isinstance(result, Failure):
        message, code = clean_text(result.message), clean_text(result.code)
        return Failure(code=code, message=message, retryable=result.retryable, report=report)
    for name, value in _results(result):
        if (found := flaw(value)) is not None:
            return _unstorable(name, found, report)
    return msgspec.structs.replace(result, report=report)


def _results(outcome: Outcome) -> list[tuple[str, Any]]:
    ports = [(clean_text(f"port '{name}'"), {name: value}) for name, value in outcome.ports.items()]
    fields = ("messages", "remember", "state_patch", "output", "route", "spoken", "loop_items")
    return [*ports, *((name, getattr(outcome, name)) for name in fields)]


def _unstorable(name: str, found: str, report: Report) -> Failure:
    return Failure(
        code="UnstorableOutput",
        message=f"Node output cannot be stored: {name} is {found}",
        retryable=False,
        report=report,
    )


def _is_plainly_sound(value: Any) -> bool:
    """Decide the usual case without a walk: it encodes, without NUL and without depth."""
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    openings = text.count(b"{") + text.count(b"[")
    suspicious = b"\\u0000" in text or _MAYBE_TOO_LONG.search(text)
    return not suspicious and openings <= MAX_DEPTH


def _parts(item: Any) -> list[Any] | None:
    """Return what *item* is made of; None for a leaf."""
    if isinstance(item, dict):
        return [*item, *item.values()]
    if isinstance(item, list | tuple):
        return list(item)
    if isinstance(item, msgspec.Struct):
        return [getattr(item, name) for name in item.__struct_fields__]
    return None


def _flaw_of_leaf(item: Any) -> str | None:
    if item is msgspec.UNSET:
        return None
    if isinstance(item, str):
        return "text with NUL or lone surrogates" if _UNCLEAN.search(item) else None
    if isinstance(item, int):
        return None if abs(item) <= _MAX_INT else "an integer over 64 bits"
    try:
        msgspec.json.encode(item)
    except TypeError:
        return f"a {type(item).__name__}, which is no JSON data"
    return None


def _cleaned(item: Any, depth: int) -> Any:
    match item:
        case str():
            return clean_text(item)
        case dict() if depth:
            return {_cleaned(key, 0): _cleaned(part, depth - 1) for key, part in item.items()}
        case list() | tuple() if depth:
            parts = [_cleaned(part, depth - 1) for part in item]
            return parts if isinstance(item, list) else tuple(parts)
        case msgspec.Struct() if depth:
            names = item.__struct_fields__
            fields = {name: _cleaned(getattr(item, name), depth - 1) for name in names}
            return msgspec.structs.replace(item, **fields)
        case int() if not isinstance(item, bool):
            return max(-_MAX_INT, min(item, _MAX_INT))
    return item if _parts(item) is None and _flaw_of_leaf(item) is None else None

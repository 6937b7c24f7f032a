"""Fits what a model extracted to the schema that was asked for. Pure.

Contract: node-types.md §5.5.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pipelit.engine.outcome import Warning_
from pipelit.engine.values import parse_json_container, to_instant, to_number, to_text

_MISFIT = object()
_TRUTH = {"true": True, "false": False}


def shape(value: Mapping[str, Any], schema: Any) -> tuple[dict[str, Any], tuple[Warning_, ...]]:
    """Return *value* with exactly the fields of *schema*; misfits become null with a warning.

    Args:
        schema: a JSON Schema of an object, or `{"field": "string | null"}`; a schema that names
            no field changes nothing.
    """
    fields = fields_of(schema)
    if not fields:
        return dict(value), ()
    shaped: dict[str, Any] = {}
    warnings: list[Warning_] = []
    for name, words in fields.items():
        given = value.get(name)
        fitting = None if given is None else _fit(given, words)
        if fitting is _MISFIT:
            warnings.append(_misfit(name, words, given))
            fitting = None
        shaped[name] = fitting
    return shaped, tuple(warnings)


def fields_of(schema: Any) -> dict[str, tuple[str, ...]]:
    """Return `{field: the types it may have}`; a field without types takes anything."""
    if not isinstance(schema, Mapping):
        return {}
    if "properties" not in schema and schema.get("type") != "object":
        return {name: _words(written) for name, written in schema.items()}
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {name: _types(declared) for name, declared in properties.items()}


def _words(written: Any) -> tuple[str, ...]:
    parts = written.split("|") if isinstance(written, str) else []
    return tuple(part.strip().lower() for part in parts if part.strip())


def _types(declared: Any) -> tuple[str, ...]:
    if not isinstance(declared, Mapping):
        return ()
    if declared.get("format") in ("date", "date-time"):
        return ("date", "null")
    kinds = declared.get("type")
    named = kinds if isinstance(kinds, list) else [kinds]
    return tuple(kind for kind in named if isinstance(kind, str))


def _fit(value: Any, words: tuple[str, ...]) -> Any:
    """Return *value* as one of the types, kept as it is if it has one already."""
    wanted = [word for word in words if word != "null"]
    if not wanted or any(word not in _KINDS for word in wanted):
        return value
    for is_one, _ in (_KINDS[word] for word in wanted):
        if is_one(value):
            return value
    for _, convert in (_KINDS[word] for word in wanted):
        converted = convert(value)
        if converted is not _MISFIT:
            return converted
    return _MISFIT


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_date(value: Any) -> bool:
    return isinstance(value, str) and to_instant(value.strip()) is not None


def _to_string(value: Any) -> Any:
    return to_text(value) if isinstance(value, bool | int | float) else _MISFIT


def _to_number(value: Any) -> Any:
    number = to_number(value) if isinstance(value, str) else None
    return _MISFIT if number is None else number


def _to_integer(value: Any) -> Any:
    number = to_number(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return number if _is_integer(number) else _MISFIT


def _to_boolean(value: Any) -> Any:
    return _TRUTH.get(value.strip().lower(), _MISFIT) if isinstance(value, str) else _MISFIT


def _to_container(kind: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        parsed = parse_json_container(value) if isinstance(value, str) else None
        return parsed if isinstance(parsed, kind) else _MISFIT

    return convert


_KINDS: Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], Any]]] = {
    "string": (lambda value: isinstance(value, str), _to_string),
    "number": (_is_number, _to_number),
    "integer": (_is_integer, _to_integer),
    "boolean": (lambda value: isinstance(value, bool), _to_boolean),
    "array": (lambda value: isinstance(value, list), _to_container(list)),
    "object": (lambda value: isinstance(value, dict), _to_container(dict)),
    "date": (_is_date, lambda value: _MISFIT),
}
"""{type: (is a value one, what else can unambiguously become one)}."""


def _misfit(name: str, words: tuple[str, ...], given: Any) -> Warning_:
    shown = to_text(given)[:200]
    message = f"'{shown}' is no {' or '.join(words)}; '{name}' is null"
    return {"code": "extraction_mismatch", "field": name, "message": message}

"""From the raw parts of a request to typed ones, or to every problem at once.

Contract: README.md §3, §4. Nothing here looks at the store: existence is the services' business.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import trio
from pydantic import BaseModel, ValidationError

from pipelit.errors import Invalid
from pipelit.web.call import PathValues
from pipelit.web.jsontext import may_hold_bad_values, parse_json
from pipelit.web.models import (
    MAX_INT64,
    MIN_INT64,
    AnyJson,
    IntegerText,
    field_names,
    known_part,
)
from pipelit.web.problems import Where, explain, explain_values
from pipelit.web.routing import ParameterKind, Route

THREAD_BYTES = 64 * 1024
"""A larger body is parsed in a thread: a mebibyte of JSON takes about 10 ms."""


class RawParts(msgspec.Struct, frozen=True, kw_only=True):
    """A request before its schema is looked at. Header names are in lower case."""

    path: Sequence[str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """A request that follows its schema. Models are None where the route declares none."""

    path: PathValues
    query: Any
    headers: Any
    body: Any
    json: Any
    """The body as parsed, before the model; None without one."""


async def decode(route: Route, parts: RawParts, *, threads: trio.CapacityLimiter) -> Decoded:
    """Check *parts* against what *route* declares.

    Raises:
        BadRequest: the body is not JSON.
        Invalid: with every problem of path, query, headers and body together.
    """
    json = await _load_body(route, parts.body, threads)
    problems: list[str] = []
    path = _decode_path(route.parameters, parts.path, problems)
    query = _decode_texts(route.query, parts.query, "query", problems)
    headers = _decode_texts(route.headers, parts.headers, "header", problems)
    body = _decode_body(route.body, json, parts.body, problems)
    if problems:
        raise Invalid(problems=problems)
    return Decoded(path=path, query=query, headers=headers, body=body, json=json)


async def _load_body(route: Route, text: bytes, threads: trio.CapacityLimiter) -> Any:
    if route.body is None:
        return None
    if not text:
        return {} if route.body_optional else None
    if len(text) <= THREAD_BYTES:
        return parse_json(text)
    return await trio.to_thread.run_sync(parse_json, text, limiter=threads, abandon_on_cancel=True)


def _decode_path(
    kinds: Mapping[str, ParameterKind], texts: Sequence[str], problems: list[str]
) -> PathValues:
    values: dict[str, str | int] = {}
    for (name, kind), text in zip(kinds.items(), texts, strict=True):
        found = list(explain_values(text, f"path.{name}"))
        if kind == "int" and not found:
            number = IntegerText.parse(text)
            if number is None:
                found = [f"path.{name}: must be an integer"]
            elif not MIN_INT64 <= number <= MAX_INT64:
                found = list(explain_values(number, f"path.{name}"))
            else:
                values[name] = number
        else:
            values[name] = text
        problems += found
    return PathValues(values)


def _decode_texts(
    model: type[BaseModel] | None, texts: Mapping[str, str], where: Where, problems: list[str]
) -> Any:
    """Decode query or headers. Header models name their fields as published, sent in any case."""
    if model is None:
        return None
    given = {}
    for name in field_names(model):
        key = name.lower() if where == "header" else name
        if key in texts:
            given[name] = texts[key]
    return _validate(model, given, where, explain_values(given, where), problems)


def _decode_body(model: type[BaseModel] | None, json: Any, text: bytes, problems: list[str]) -> Any:
    if model is None:
        return None
    if json is None and not text:
        problems.append("body: field required")
        return None
    if model is AnyJson:
        problems += explain_values(json, "body")
        return AnyJson(json)
    if not isinstance(json, dict):
        problems.append("body: must be an object")
        return None
    unclean: Iterable[str] = ()
    if may_hold_bad_values(text):
        unclean = explain_values(known_part(json, model), "body")
    return _validate(model, json, "body", unclean, problems)


def _validate(
    model: type[BaseModel],
    value: Mapping[str, Any],
    where: Where,
    unclean: Iterable[str],
    problems: list[str],
) -> Any:
    """Build the model; add what it finds, and *unclean* values at places it did not mention."""
    found: list[str] = []
    built = None
    try:
        built = model.model_validate(value)
    except ValidationError as error:
        found = explain(error, where, value)
    places = {problem.partition(": ")[0] for problem in found}
    found += [problem for problem in unclean if problem.partition(": ")[0] not in places]
    problems += found
    return built

"""Writes the OpenAPI 3.1 document out of the route declarations. Contract: operations.md §3."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from pydantic import BaseModel

from pipelit.web.auth import ADMIN_ONLY, MISSING_KEY
from pipelit.web.dispatch import API_PREFIX
from pipelit.web.routing import Auth, CustomAuth, ParameterKind, Refuses, Route
from pipelit.web.schemas import REF, Schema, SchemaBook

KEY_REFUSALS = (
    Refuses(401, MISSING_KEY, "no key, another scheme, or an unknown key"),
    Refuses(401, "API key has been revoked.", "the key was revoked"),
    Refuses(401, "API key has expired.", "the key is past its end"),
    Refuses(401, "User not found.", "the key's user is gone or disabled"),
)
_BODY_REFUSALS = (
    Refuses(400, "Malformed JSON body.", "the body is not JSON"),
    Refuses(408, "Request Timeout", "the body did not arrive within 60 s"),
    Refuses(413, "Request body too large.", "the body is over the limit"),
    Refuses(415, "Unsupported media type. Use application/json.", "another media type"),
)
_COMMON_REFUSALS = (
    Refuses(500, "Internal server error.", "a bug of the server"),
    Refuses(503, "Server is shutting down.", "the server stops"),
    Refuses(503, "Storage is not available.", "storage is not writable"),
)
_CONVENTIONS = (
    "Every path works with and without its trailing slash. No text holds U+0000, and no integer "
    "is beyond 64 bits, in free objects too: 422. Unknown fields and parameters are ignored; of a "
    "repeated parameter the last counts."
)
_KINDS: dict[ParameterKind, Schema] = {
    "text": {"type": "string"},
    "int": {"type": "integer", "format": "int64"},
    "path": {"type": "string"},
}
_ERROR: Schema = {
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": {"type": "string"}},
}
_PROBLEMS: Schema = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "object",
            "required": ["validation_errors"],
            "properties": {"validation_errors": {"type": "array", "items": {"type": "string"}}},
        }
    },
}


def build_document(
    api_routes: Sequence[Route], root_routes: Sequence[Route], *, version: str
) -> dict[str, Any]:
    """Return the document of all routes.

    Args:
        api_routes: routes below `/api/v1`.
        root_routes: routes at the root.
        version: of the product.
    """
    routes = [(API_PREFIX, route) for route in api_routes] + [("", route) for route in root_routes]
    book = SchemaBook(
        (model for _, route in routes for model in _models(route)),
        _distinct(kind for _, route in routes for kind in _answers(route).values() if kind),
    )
    paths: dict[str, dict[str, Any]] = {}
    for prefix, route in routes:
        path = prefix + re.sub(r":(int|path)\}", "}", route.path)
        operation = _operation(route, book, in_api=bool(prefix))
        paths.setdefault(path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pipelit",
            "version": version,
            "description": _CONVENTIONS,
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR, "ValidationErrors": _PROBLEMS, **book.components},
            "securitySchemes": _security_schemes([route for _, route in routes]),
        },
    }


def _models(route: Route) -> list[type[BaseModel]]:
    return [model for model in (route.body, route.query, route.headers) if model is not None]


def _distinct(types: Iterable[object]) -> list[object]:
    found: list[object] = []
    for kind in types:
        if kind not in found:
            found.append(kind)
    return found


def _operation(route: Route, book: SchemaBook, *, in_api: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "tags": [route.section],
        "summary": route.summary,
        "responses": _responses(route, book, in_api=in_api),
    }
    if route.description:
        operation["description"] = route.description
    parameters = _parameters(route, book)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content: dict[str, Any] = {"schema": book.of_model(route.body)}
        examples = {
            f"example {n}": {"value": example.body}
            for n, example in enumerate(route.examples, 1)
            if example.body is not None
        }
        if examples:
            content["examples"] = examples
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": content},
        }
    operation["security"] = _security(route.auth)
    return operation


def _security(auth: Auth | CustomAuth) -> list[dict[str, list[str]]]:
    """Return the schemes of which one is enough."""
    if not isinstance(auth, CustomAuth):
        return [] if auth is Auth.NONE else [{"bearer": []}]
    schemes = [{name: list[str]()} for name in _custom_schemes(auth)]
    return [*schemes, {}] if auth.is_optional else schemes


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r":(int|path)\}", "}", route.path)).strip("_")
    return f"{route.method.lower()}_{words}" if words else route.method.lower()


def _parameters(route: Route, book: SchemaBook) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": _KINDS[kind]}
        for name, kind in route.parameters.items()
    ]
    for place, model in (("query", route.query), ("header", route.headers)):
        if model is not None:
            fields, required = book.parameters_of(model)
            found += [
                {"name": name, "in": place, "required": name in required, "schema": schema}
                for name, schema in fields.items()
            ]
    return found


def _responses(route: Route, book: SchemaBook, *, in_api: bool) -> dict[str, Any]:
    responses = {
        str(status): _success(route, status, kind, book) for status, kind in _answers(route).items()
    }
    refusals = _refusals(route, in_api=in_api)
    statuses = {refusal.status for refusal in refusals} | ({422} if _has_schema(route) else set())
    for status in sorted(statuses):
        found = [refusal for refusal in refusals if refusal.status == status]
        plain = [refusal for refusal in found if refusal.detail]
        lists_problems = status == 422 and (_has_schema(route) or plain != found)
        responses[str(status)] = _refusal(plain, lists_problems=lists_problems)
    return responses


def _answers(route: Route) -> dict[int, object]:
    """Return what a route answers when it succeeds: {status: type}."""
    return {route.status: route.response, **route.also}


def _success(route: Route, status: int, kind: object, book: SchemaBook) -> dict[str, Any]:
    success: dict[str, Any] = {"description": route.summary}
    if kind is not None:
        content: dict[str, Any] = {"schema": book.of_type(kind)}
        examples = {
            f"{route.method} {example.path}": {"value": example.response}
            for example in route.examples
            if example.status == status and example.response is not None
        }
        if examples:
            content["examples"] = examples
        success["content"] = {"application/json": content}
    if route.media and status == route.status:
        success.setdefault("content", {})[route.media] = {"schema": {"type": "string"}}
    return success


def _has_schema(route: Route) -> bool:
    """Tell whether a request to *route* can break its schema."""
    return bool(_models(route)) or "int" in route.parameters.values()


def _refusals(route: Route, *, in_api: bool) -> list[Refuses]:
    """Return what a route can refuse: what it declares, and what its parts imply."""
    found = list(route.refuses)
    if route.auth in {Auth.BEARER, Auth.ADMIN}:
        found += KEY_REFUSALS
    if route.auth is Auth.ADMIN:
        found.append(Refuses(403, ADMIN_ONLY, "the caller is not an admin"))
    if route.body is not None:
        found += _BODY_REFUSALS
    return [*found, *_COMMON_REFUSALS] if in_api else found


def _refusal(refusals: Sequence[Refuses], *, lists_problems: bool) -> dict[str, Any]:
    lines = [f"`{refusal.detail}` – {refusal.when}" for refusal in refusals]
    schemas: list[Schema] = [{"$ref": REF + "Error"}] if refusals else []
    if lists_problems:
        lines.append("all problems of the request, in `validation_errors`")
        schemas.append({"$ref": REF + "ValidationErrors"})
    content: dict[str, Any] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    if refusals:
        content["examples"] = {r.detail: {"value": {"detail": r.detail}} for r in refusals}
    return {"description": "\n".join(lines), "content": {"application/json": content}}


def _security_schemes(routes: Iterable[Route]) -> dict[str, Any]:
    schemes: dict[str, Any] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."}
    }
    for route in routes:
        if isinstance(route.auth, CustomAuth):
            schemes |= _custom_schemes(route.auth)
    return schemes


def _custom_schemes(auth: CustomAuth) -> dict[str, Any]:
    """Return the ways to carry the key of a route with a check of its own, by name."""
    said = {"description": auth.description}
    schemes: dict[str, Any] = {auth.name: {"type": "http", "scheme": "bearer", **said}}
    if auth.query:
        schemes[f"{auth.name}_query"] = {"type": "apiKey", "in": "query", "name": auth.query}
        schemes[f"{auth.name}_query"] |= said
    return schemes


class ApiDocument(msgspec.Struct, frozen=True):
    """The documentation of the running server, encoded once: for programs and for people."""

    json: bytes
    page: bytes

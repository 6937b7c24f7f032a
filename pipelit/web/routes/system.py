"""Probes and documentation at the root: `/health`, `/ready`, `/openapi.json`, `/docs`.

Contract: health.md, operations.md §3.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import msgspec
import structlog
import trio

from pipelit.web.call import Call
from pipelit.web.docs_page import write_page
from pipelit.web.openapi import ApiDocument, build_document
from pipelit.web.responses import RawResponse, Response
from pipelit.web.routing import Auth, Example, Route

CHECK_SECONDS = 2.0
Check = Callable[[], Awaitable[bool]]
Readiness = Literal["ready", "starting", "stopping", "overloaded"]

_log = structlog.get_logger(__name__)


class HealthChecks(msgspec.Struct, frozen=True, kw_only=True):
    """What the probes ask. A check may raise or hang: it then counts as failed."""

    version: str
    database: Check
    """A trivial query succeeds, and the last write did not fail for lack of space or rights."""
    readiness: Callable[[], Readiness]
    broker: Check | None = None
    """None when no broker is configured, which is normal."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the server, in exactly these four fields."""

    status: Literal["ok", "degraded"]
    version: str
    redis: bool | None
    database: bool


class Ready(msgspec.Struct, frozen=True):
    """Whether the server takes work."""

    status: Readiness


async def health(call: Call) -> Health:
    """Run the checks at once, each with its own deadline."""
    checks = call.service(HealthChecks)
    results: dict[str, bool] = {}

    async def run(name: str, check: Check) -> None:
        results[name] = await _passes(name, check)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "database", checks.database)
        if checks.broker is not None:
            nursery.start_soon(run, "redis", checks.broker)
    return Health(
        status="ok" if all(results.values()) else "degraded",
        version=checks.version,
        redis=results.get("redis"),
        database=results["database"],
    )


async def _passes(name: str, check: Check) -> bool:
    try:
        with trio.move_on_after(CHECK_SECONDS):
            return await check()
    except Exception as error:  # noqa: BLE001  # a check that fails is an answer, not an error
        _log.warning("health check failed", check=name, exc_info=error)
    return False


async def ready(call: Call) -> Response:
    """Say whether the server takes work."""
    status = call.service(HealthChecks).readiness()
    if status == "ready":
        return Response(status=200, body=Ready(status))
    return Response(status=503, body=Ready(status), headers={"Retry-After": "1"})


async def openapi(call: Call) -> RawResponse:
    """Return the OpenAPI document."""
    document = call.service(ApiDocument)
    return RawResponse(status=200, content=document.json, content_type="application/json")


async def docs(call: Call) -> RawResponse:
    """Return the documentation for people."""
    document = call.service(ApiDocument)
    return RawResponse(status=200, content=document.page, content_type="text/html; charset=utf-8")


def describe(
    api_routes: Sequence[Route], root_routes: Sequence[Route], *, version: str
) -> ApiDocument:
    """Write the documentation of all routes, a service for `/openapi.json` and `/docs`."""
    document = build_document(api_routes, root_routes, version=version)
    return ApiDocument(msgspec.json.encode(document), write_page(document).encode())


def _route(
    path: str,
    handler: Callable[[Call], Awaitable[object]],
    summary: str,
    **more: Any,
) -> Route:
    return Route("GET", path, handler, auth=Auth.NONE, section="system", summary=summary, **more)


_HEALTHY = Health(status="ok", version="0.1.0", redis=None, database=True)

ROUTES = (
    _route(
        "/health",
        health,
        "Tell whether the server works; always 200.",
        response=Health,
        examples=(Example(path="/health", response=msgspec.to_builtins(_HEALTHY)),),
    ),
    _route(
        "/ready",
        ready,
        "Tell whether the server takes work; else 503.",
        response=Ready,
        also={503: Ready},
        examples=(
            Example(path="/ready", response={"status": "ready"}),
            Example(path="/ready", status=503, response={"status": "stopping"}),
        ),
    ),
    _route(
        "/openapi.json",
        openapi,
        "The OpenAPI document of this server.",
        response=dict[str, Any],
        examples=(Example(path="/openapi.json", response={"openapi": "3.1.0"}),),
    ),
    _route("/docs", docs, "This documentation, for people.", media="text/html"),
)
"""Routes at the root; the composition root gives `HealthChecks` and `ApiDocument`."""

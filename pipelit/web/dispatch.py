"""One request from path to answer, in the contract's order of checks.

Contract: README.md §4: path (404) → method (405) → token (401) → role (403) → body size (413) →
media type (415) → JSON (400) → schema (422) → the handler, which has the rest.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog
import trio

from pipelit.actors.runtime import origin
from pipelit.clock import Ids
from pipelit.errors import Unavailable
from pipelit.web.acts import PATIENCE, Deed, Record, describe
from pipelit.web.auth import Authenticator, identify, require_role
from pipelit.web.call import Call, Services
from pipelit.web.decode import RawParts, decode
from pipelit.web.encode import encode, is_small
from pipelit.web.errors import HttpRefusal, find_refusal, internal_error, to_response
from pipelit.web.matching import Match, RouteTable
from pipelit.web.request import BodyInbox, Head
from pipelit.web.responses import RawResponse, Response, SendChunk, StreamResponse
from pipelit.web.routing import Route

API_PREFIX = "/api/v1"
BODY_SECONDS = 60.0
"""A client gets this long to send a body."""

MAX_LOGGED_PATH = 200
_QUIET = frozenset({"/health", "/ready", "/metrics"})

_JSON_TYPE = re.compile(r"application/(?:json|[a-z0-9!#$&^_.+-]+\+json)\s*(?:;.*)?", re.IGNORECASE)
_log = structlog.get_logger(__name__)

Observe = Callable[[str, str, int, float], None]
"""Told after every answer: route template, method, status, seconds. Never raises."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response ready for the wire: either `content`, or `produce` writes the body."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    produce: Callable[[SendChunk], Awaitable[None]] | None = None


class Dispatcher:
    """Answers requests. Holds no state of its own but what it was built with."""

    def __init__(
        self,
        table: RouteTable,
        *,
        services: Services,
        authenticate: Authenticator,
        ids: Ids,
        cors: bool,
        is_stopping: Callable[[], bool],
        observe: Observe,
        record: Record,
    ) -> None:
        self._table = table
        self._services = services
        self._authenticate = authenticate
        self._ids = ids
        self._cors = cors
        self._is_stopping = is_stopping
        self._observe = observe
        self._record = record
        self._threads = trio.CapacityLimiter(2)

    async def answer(self, head: Head, inbox: BodyInbox) -> Answer:
        """Answer one request. Raises nothing but cancellation: bugs become a logged 500."""
        started = trio.current_time()
        request_id = head.valid_request_id or self._ids.hex(32)
        match = self._table.find(head.raw_path)
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            origin(request_id=request_id),
        ):
            try:
                result = await self._respond(match, head, inbox, request_id)
            except Exception as error:  # noqa: BLE001  # answered, and logged unless a refusal
                result = self._explain(error)
            answer = await self._finish(result, head, request_id)
        route = match and match.routes.get("GET" if head.method == "HEAD" else head.method)
        prefix = API_PREFIX if head.raw_path.startswith(API_PREFIX + "/") else ""
        template = prefix + route.path if route else "-"
        seconds = trio.current_time() - started
        self._observe(template, head.method, answer.status, seconds)
        _log_answer(template, head, answer.status, seconds, request_id)
        return answer

    async def _respond(
        self, match: Match | None, head: Head, inbox: BodyInbox, request_id: str
    ) -> Response | RawResponse | StreamResponse:
        if match is None:
            raise HttpRefusal(404, "Not Found")
        if head.method == "OPTIONS":
            return Response(status=204, headers={"Allow": match.allowed})
        route = match.routes.get("GET" if head.method == "HEAD" else head.method)
        if route is None:
            raise HttpRefusal(405, "Method Not Allowed", {"Allow": match.allowed})
        if self._is_stopping() and head.raw_path.startswith(API_PREFIX + "/"):
            raise Unavailable("Server is shutting down.")
        caller = await identify(route.auth, head, self._authenticate, self._services)
        deed = Deed(route=route, head=head, request_id=request_id, caller=caller)
        if route.act is None:
            return await self._do(deed, match, inbox)
        return await self._do_recorded(deed, match, inbox)

    async def _do_recorded(
        self, deed: Deed, match: Match, inbox: BodyInbox
    ) -> Response | RawResponse | StreamResponse:
        try:
            result = await self._do(deed, match, inbox)
        except Exception as error:
            refusal = find_refusal(error)
            deed.status = 500 if refusal is None else to_response(refusal).status
            raise
        else:
            deed.result, deed.status = result, result.status
            return result
        finally:
            # Also for a caller who has left: the act may have been done.
            with trio.move_on_after(PATIENCE, shield=True):
                if (entry := describe(deed)) is not None:
                    await self._record(entry)

    async def _do(
        self, deed: Deed, match: Match, inbox: BodyInbox
    ) -> Response | RawResponse | StreamResponse:
        route, head = deed.route, deed.head
        require_role(route.auth, deed.caller)
        body = await _read_body(route, head, inbox)
        parts = RawParts(path=match.values, query=head.query, headers=head.headers, body=body)
        decoded = await decode(route, parts, threads=self._threads)
        deed.call = call = Call(
            path=decoded.path,
            body=decoded.body,
            query=decoded.query,
            headers=decoded.headers,
            services=self._services,
            peer=head.peer,
            request_id=deed.request_id,
            raw_headers=head.headers,
            raw_query=head.query,
            raw_body=decoded.json,
            caller=deed.caller,
        )
        result = await route.handler(call)
        if isinstance(result, Response | RawResponse | StreamResponse):
            return result
        return Response(status=route.status, body=result)

    def _explain(self, error: Exception) -> Response:
        refusal = find_refusal(error)
        if refusal is not None:
            return to_response(refusal)
        _log.error("request failed", exc_info=error)
        return internal_error()

    async def _finish(
        self, result: Response | RawResponse | StreamResponse, head: Head, request_id: str
    ) -> Answer:
        """Encode *result* and add the headers that every response carries."""
        headers = {"X-Request-ID": request_id, **result.headers}
        if head.raw_path.startswith(API_PREFIX + "/"):
            headers["Cache-Control"] = "no-store"
        if self._cors:
            headers.update(_cors_headers(head, headers.get("Allow")))
        if isinstance(result, StreamResponse):
            headers["Content-Type"] = result.content_type
            produce = None if head.method == "HEAD" else result.produce
            return Answer(status=result.status, headers=headers, produce=produce)
        content = b""
        if isinstance(result, RawResponse):
            content = result.content
            headers["Content-Type"] = result.content_type
        elif result.status != 204:
            try:
                content = await self._encode(result.body)
            except RecursionError:
                # Without its traceback: showing the value would recurse as deeply.
                _log.error("answer nested too deeply")
                return await self._finish(internal_error(), head, request_id)
            except (TypeError, ValueError, OverflowError) as error:
                return await self._finish(self._explain(error), head, request_id)
            headers["Content-Type"] = "application/json"
        if result.status != 204:
            headers["Content-Length"] = str(len(content))
        return Answer(status=result.status, headers=headers, content=content)

    async def _encode(self, body: object) -> bytes:
        if is_small(body):
            return encode(body)
        return await trio.to_thread.run_sync(encode, body, limiter=self._threads)


def _log_answer(template: str, head: Head, status: int, seconds: float, request_id: str) -> None:
    """Write the request log. Probes and scrapers come every few seconds, so they are detail."""
    level = logging.DEBUG if template in _QUIET and status < 500 else logging.INFO
    _log.log(
        level,
        "request",
        request_id=request_id,
        method=head.method[:20],
        path=head.raw_path[:MAX_LOGGED_PATH],
        route=template,
        status=status,
        ms=round(seconds * 1000, 1),
        peer=head.peer,
    )


async def _read_body(route: Route, head: Head, inbox: BodyInbox) -> bytes:
    """Return the body, or b"" where the route takes none.

    Raises:
        HttpRefusal: 413, 415, or 408 when the client does not send it.
    """
    if route.body is None:
        return b""
    with trio.move_on_after(BODY_SECONDS) as scope:
        body = await inbox.read()
    if scope.cancelled_caught:
        raise HttpRefusal(408, "Request Timeout", {"Connection": "close"})
    if body is None:
        raise HttpRefusal(413, "Request body too large.")
    if body and not _JSON_TYPE.fullmatch(head.headers.get("content-type", "")):
        raise HttpRefusal(415, "Unsupported media type. Use application/json.")
    return body


def _cors_headers(head: Head, allowed: str | None) -> dict[str, str]:
    """Return the CORS headers; a preflight also learns methods and headers.

    `*` as allowed header would leave out `Authorization`, so the asked ones are repeated.
    """
    headers = {"Access-Control-Allow-Origin": "*"}
    if head.method == "OPTIONS" and allowed:
        headers["Access-Control-Allow-Methods"] = allowed
        asked = head.headers.get("access-control-request-headers", "*")
        headers["Access-Control-Allow-Headers"] = asked
    return headers

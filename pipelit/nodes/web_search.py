"""The `web_search` node, as step and as tool: the top results of a SearXNG server.

Contract: node-types.md §7.3.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import urlencode

import msgspec

from pipelit.engine.definition import NodeDef
from pipelit.engine.outcome import Outcome
from pipelit.engine.values import to_text
from pipelit.net.http import EgressBlocked, HttpClient, HttpError, HttpRequest, HttpResponse
from pipelit.nodes.base import (
    NodeCall,
    NodeError,
    NodeServices,
    Tool,
    ToolContext,
    ToolError,
    config_error,
)
from pipelit.nodes.tool_schema import tool_spec

MAX_RESULTS = 5
SEARCH_SECONDS = 15.0

_MAX_SHOWN_CHARS = 200
_MAX_BYTES = 1_048_576
_TOOL_GRACE = 5.0

FindServer: TypeAlias = Callable[[], Awaitable[str]]
"""Returns the URL of the server to ask when a node names none."""

_WEB_SEARCH = tool_spec(
    "web_search",
    "Search the web. Returns the top results.",
    {"query": {"type": "string", "description": "What to search for"}},
    required=("query",),
)


class Hit(msgspec.Struct, frozen=True):
    """One result of a search."""

    title: str
    url: str
    content: str


class _Refused(Exception):
    """No results could be had; the text says why. `blocked`: the egress policy refused."""

    def __init__(self, message: str, *, blocked: bool = False) -> None:
        super().__init__(f"Search error: {message}")
        self.blocked = blocked


async def web_search(call: NodeCall, *, find_server: FindServer) -> Outcome:
    """Search for the configured query."""
    query = to_text(call.extra.get("query"))
    if not query.strip():
        raise config_error("'query' is required")
    try:
        hits = await _search(call.services.http, call.extra, query, find_server)
    except _Refused as error:
        code = EgressBlocked.code if error.blocked else "ToolError"
        raise NodeError(str(error), code=code, retryable=not error.blocked) from error
    return Outcome(
        ports={
            "result": show(hits),
            "results": [msgspec.structs.asdict(hit) for hit in hits],
        }
    )


def web_search_tools(
    node: NodeDef, config: dict[str, Any], services: NodeServices, *, find_server: FindServer
) -> tuple[Tool, ...]:
    """Offer `web_search`."""
    extra = config.get("extra_config") or {}
    search = partial(_search, services.http, extra, find_server=find_server)

    async def run(arguments: dict[str, Any], _context: ToolContext) -> str:
        try:
            return show(await search(arguments["query"]))
        except _Refused as error:
            raise ToolError(str(error), told=str(error)) from error

    return (Tool(spec=_WEB_SEARCH, node=node, run=run, timeout=SEARCH_SECONDS + _TOOL_GRACE),)


def show(hits: Sequence[Hit]) -> str:
    """Return what a model reads of the results."""
    lines = (f"- {hit.title}\n  {hit.url}\n  {hit.content[:_MAX_SHOWN_CHARS]}" for hit in hits)
    return "\n\n".join(lines) or "No results found."


async def _search(
    client: HttpClient, extra: dict[str, Any], query: str, find_server: FindServer
) -> list[Hit]:
    server = to_text(extra.get("searxng_url")).strip() or await find_server()
    parameters = urlencode({"q": query, "format": "json"})
    request = HttpRequest(
        method="GET",
        url=f"{server.rstrip('/')}/search?{parameters}",
        timeout=SEARCH_SECONDS,
        max_bytes=_MAX_BYTES,
    )
    try:
        response = await client.request(request)
    except EgressBlocked as error:
        raise _Refused(str(error), blocked=True) from error
    except HttpError as error:
        raise _Refused(f"{error.code}: {error}") from error
    return _read(response)


def _read(response: HttpResponse) -> list[Hit]:
    if response.status != 200:
        raise _Refused(f"HTTP {response.status}")
    try:
        answer = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refused("the server's answer is not JSON") from error
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise _Refused("the server's answer has no results")
    found = [result for result in results if isinstance(result, dict)]
    return [
        Hit(*(to_text(result.get(name)) for name in Hit.__struct_fields__))
        for result in found[:MAX_RESULTS]
    ]

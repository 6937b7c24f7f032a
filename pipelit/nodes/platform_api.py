"""`platform_api`: an agent calls this server's own REST API, and nothing else.

Contract: node-types.md §8.2.
"""

import json
from functools import partial
from typing import Any
from urllib.parse import unquote

import trio

from pipelit.engine.definition import NodeDef
from pipelit.net.http import EgressBlocked, HttpClient, HttpError, HttpRequest, HttpResponse
from pipelit.nodes.base import NodeServices, Tool, ToolContext, ToolError
from pipelit.nodes.tool_limits import text
from pipelit.nodes.tool_schema import tool_spec

METHODS = frozenset({"GET", "POST", "PATCH", "DELETE"})
SECONDS = 30.0
MAX_RESPONSE_BYTES = 1_048_576
MAX_PATH_CHARS = 8_000

_CALL = tool_spec(
    "platform_api",
    "Call the platform REST API. Start with path /openapi.json to see the endpoints.",
    {
        "method": text("GET, POST, PATCH or DELETE", "GET"),
        "path": text("Path with query, from /", "/openapi.json"),
        "body": text("JSON body of POST and PATCH", ""),
        "api_key": text("Key of an account", ""),
    },
)


def platform_api_tools(
    node: NodeDef,
    _config: dict[str, Any],
    _services: NodeServices,
    *,
    client: HttpClient,
    base_url: str,
) -> tuple[Tool, ...]:
    """Offer `platform_api`; *client* reaches *base_url* whatever its address."""

    async def run(arguments: dict[str, Any], _context: ToolContext) -> str:
        request = build_request(base_url, **arguments)
        try:
            response = await client.request(request)
        except HttpError as error:
            late = error.code == "TimeoutException"
            raise _failed("Request timed out" if late else str(error)) from error
        except EgressBlocked as error:
            raise _failed(str(error)) from error
        # Up to a megabyte of JSON, read and written again.
        return await trio.to_thread.run_sync(partial(show, response), abandon_on_cancel=True)

    return (Tool(spec=_CALL, node=node, run=run, timeout=SECONDS + 10),)


def build_request(base_url: str, *, method: str, path: str, body: str, api_key: str) -> HttpRequest:
    """Build a request that can reach no other server. Pure.

    Raises:
        ToolError: the method or the path is none.
    """
    verb = method.strip().upper()
    if verb not in METHODS:
        error = {"error": f"Unsupported method: {method}"}
        raise ToolError(error["error"], told=_dump(error))
    if not path.startswith("/") or path.startswith("//"):
        raise _failed("path must start with '/'")
    if len(path) > MAX_PATH_CHARS:
        raise _failed(f"path must be at most {MAX_PATH_CHARS} characters")
    if _climbs(path):
        raise _failed("path must not contain '..'")
    # Said on behalf of whoever talks to the agent: nobody who sits at this machine.
    headers = {"Forwarded": "for=_workflow"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    content = b""
    if verb in ("POST", "PATCH"):
        headers["Content-Type"] = "application/json"
        content = (body or "{}").encode(errors="replace")
    return HttpRequest(
        method=verb,
        url=base_url.rstrip("/") + path,
        headers=headers,
        body=content,
        timeout=SECONDS,
        max_bytes=MAX_RESPONSE_BYTES,
    )


def _climbs(path: str) -> bool:
    """Whether a path could leave the one the server is at."""
    plain = path.partition("?")[0].partition("#")[0].replace("\\", "/")
    return any(unquote(part) in (".", "..") for part in unquote(plain).split("/"))


def show(response: HttpResponse) -> str:
    """Return what the model reads of an answer."""
    content = response.body.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = content
    told = {
        "status_code": response.status,
        "success": 200 <= response.status < 300,
        "data": data,
    }
    if response.status >= 400:
        told["error"] = f"HTTP {response.status}"
    return _dump(told)


def _failed(error: str) -> ToolError:
    return ToolError(error, told=_dump({"error": error, "success": False}))


_dump = partial(json.dumps, indent=2, ensure_ascii=False)

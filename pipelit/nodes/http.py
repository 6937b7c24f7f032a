"""The `http_request` node, as step and as tool. Contract: node-types.md §7.2, engine.md §10.5."""

import codecs
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from pipelit.engine.definition import NodeDef
from pipelit.engine.outcome import Outcome
from pipelit.engine.values import to_integer, to_number, to_text
from pipelit.net.http import (
    MAX_REDIRECTS,
    EgressBlocked,
    HttpClient,
    HttpError,
    HttpRequest,
    HttpResponse,
)
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

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
MAX_RESPONSE_BYTES = 1_048_576
MAX_RESULT_CHARS = 4_000

_UNKEYED_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SLOW_CHARSETS = frozenset({"idna", "punycode"})  # quadratic, and no encodings of bodies
_TOOL_GRACE = 5.0

_HTTP_REQUEST = tool_spec(
    "http_request",
    "Make one HTTP request. Returns the status line and the response body.",
    {
        "url": {"type": "string", "description": "Absolute http(s) URL"},
        "method": {
            "type": "string",
            "default": "",
            "description": "HTTP method; empty = configured default",
        },
        "body": {"type": "string", "default": "", "description": "Request body"},
    },
    required=("url",),
)


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the config says about every request of a node, within the contract's limits."""

    method: str
    headers: dict[str, str]
    timeout: float
    max_bytes: int
    max_redirects: int


class Body(msgspec.Struct, frozen=True):
    """A response body read as text. `text` describes a body that is none."""

    text: str
    json: Any


class UnsupportedMethod(ValueError):
    """The method is none of `METHODS`."""

    def __init__(self, method: str) -> None:
        super().__init__(f"unsupported method '{method}'")


async def http_request(call: NodeCall) -> Outcome:
    """Make the configured request; every answer is a success, whatever its status."""
    options = read_options(call.extra)
    url = to_text(call.extra.get("url"))
    if not url.strip():
        raise config_error("'url' is required")
    body, content_type = encode_body(call.extra.get("body"))
    try:
        request = build_request(
            options, url, body, key=call.identity.idempotency_key, content_type=content_type
        )
    except UnsupportedMethod as error:
        raise config_error(str(error)) from error
    try:
        response = await call.services.http.request(request)
    except EgressBlocked as error:
        raise NodeError(str(error), code=error.code, retryable=False) from error
    except HttpError as error:
        raise NodeError(f"{error.code}: {error}", code=error.code) from error
    return Outcome(ports=response_ports(response))


def http_request_tools(
    node: NodeDef, config: dict[str, Any], services: NodeServices
) -> tuple[Tool, ...]:
    """Offer `http_request`."""
    options = read_options(config.get("extra_config") or {})

    async def run(arguments: dict[str, Any], context: ToolContext) -> str:
        return await _call_tool(options, services.http, arguments, context.idempotency_key)

    return (Tool(spec=_HTTP_REQUEST, node=node, run=run, timeout=options.timeout + _TOOL_GRACE),)


async def _call_tool(
    options: HttpOptions, client: HttpClient, arguments: dict[str, Any], key: str
) -> str:
    chosen = arguments.get("method") or options.method
    body = arguments.get("body", "").encode()
    try:
        request = build_request(
            msgspec.structs.replace(options, method=chosen), arguments["url"], body, key=key
        )
        return result_text(await client.request(request))
    except HttpError as error:
        raise ToolError(f"{error.code}: {error}") from error
    except (EgressBlocked, UnsupportedMethod) as error:
        raise ToolError(str(error)) from error


def read_options(extra: Mapping[str, Any]) -> HttpOptions:
    """Read the config, numbers that came out of templates included.

    Raises:
        NodeError: `ConfigError`; `headers` is no object, or a number is none.
    """
    headers = extra.get("headers") or {}
    if not isinstance(headers, dict):
        raise config_error("'headers' must be an object")
    timeout = to_number(extra.get("timeout", 30))
    max_bytes = to_integer(extra.get("max_response_bytes", 262_144))
    if timeout is None or max_bytes is None:
        raise config_error("'timeout' and 'max_response_bytes' must be numbers")
    return HttpOptions(
        method=to_text(extra.get("method")) or "GET",
        headers={to_text(name): to_text(value) for name, value in headers.items()},
        timeout=float(min(max(timeout, 1), 300)),
        max_bytes=min(max(max_bytes, 1), MAX_RESPONSE_BYTES),
        max_redirects=MAX_REDIRECTS if extra.get("follow_redirects") is True else 0,
    )


def encode_body(body: Any) -> tuple[bytes, str]:
    """Return the bytes of a configured body and the content type they imply, if any."""
    if isinstance(body, dict | list):
        return json.dumps(body, ensure_ascii=False).encode(), "application/json"
    return to_text(body).encode(), ""


def build_request(
    options: HttpOptions, url: str, body: bytes, *, key: str, content_type: str = ""
) -> HttpRequest:
    """Build the request, with the idempotency key where repeating could do harm. Pure.

    Raises:
        UnsupportedMethod: the contract knows no such method.
    """
    method = options.method.strip().upper()
    if method not in METHODS:
        raise UnsupportedMethod(options.method)
    headers = dict(options.headers)
    given = {name.lower() for name in headers}
    if content_type and "content-type" not in given:
        headers["Content-Type"] = content_type
    if method not in _UNKEYED_METHODS and "idempotency-key" not in given:
        headers["Idempotency-Key"] = key
    return HttpRequest(
        method=method,
        url=url.strip(),
        headers=headers,
        body=body,
        timeout=options.timeout,
        max_bytes=options.max_bytes,
        max_redirects=options.max_redirects,
    )


def response_ports(response: HttpResponse) -> dict[str, Any]:
    """Return the ports of a step."""
    body = read_body(response)
    return {
        "status_code": response.status,
        "body": body.text,
        "json": body.json,
        "headers": response.headers,
        "ok": 200 <= response.status < 300,
        "result": _result(response.status, body.text),
    }


def result_text(response: HttpResponse) -> str:
    """Return what the model reads: the status line and the beginning of the body."""
    return _result(response.status, read_body(response).text)


def _result(status: int, text: str) -> str:
    return f"HTTP {status}\n{text[:MAX_RESULT_CHARS]}"


def read_body(response: HttpResponse) -> Body:
    """Decode a body by its charset; what is no text is described instead."""
    content_type = response.headers.get("content-type", "")
    text = _decode(response, content_type)
    if text is None:
        kind = content_type or "unknown type"
        return Body(f"(binary, {len(response.body)} bytes, {kind})", None)
    return Body(text, _parse_json(text))


def _decode(response: HttpResponse, content_type: str) -> str | None:
    charset = _charset(content_type)
    try:
        b"probe".decode(charset, "replace")  # refuses codecs that are no charsets, like `zlib`
        if codecs.lookup(charset).name in _SLOW_CHARSETS:
            return None
        # The limit may have cut a character in two: the rest of it is no error.
        decoder = codecs.getincrementaldecoder(charset)("strict")
        text = decoder.decode(response.body, final=not response.truncated)
    except (ValueError, LookupError):
        return None
    # No text has a NUL, and not every database could store one.
    return None if "\0" in text else text


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip():
            return value.strip().strip("\"'")
    return "utf-8"


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name}")

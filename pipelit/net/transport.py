"""The HTTP library's transport on top of the checked network backend."""

import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator

import httpcore2
import httpx2

from pipelit.net.backend import CheckedBackend, EgressGuard

MAX_CONNECTIONS = 10_000
"""Above any sensible number of calls at once: calls wait on their own limits, not on the pool."""
MAX_IDLE_CONNECTIONS = 20
KEEPALIVE_SECONDS = 15.0

_CONTROL = re.compile(r"[\r\n\0]")


class CheckedTransport(httpx2.AsyncHTTPTransport):
    """Checks every URL it is given, and connects through the guard."""

    def __init__(self, guard: EgressGuard, ssl_context: ssl.SSLContext) -> None:
        # httpx2 has no parameter for the network backend; its pool is all the base class holds.
        self._pool = _Pool(
            ssl_context=ssl_context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=CheckedBackend(guard),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; a redirect is an answer like any other."""
        check_url(request.url)
        return await super().handle_async_request(request)


class _Pool(httpcore2.AsyncConnectionPool):
    """A pool whose response bodies may be left half read.

    httpx2 drops the body's generator without closing it; Trio warns about such generators, and
    their connection would wait for the garbage collector.
    """

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        response = await super().handle_async_request(request)
        return httpcore2.Response(
            status=response.status,
            headers=response.headers,
            content=_Body(response),
            extensions=response.extensions,
        )


class _Body:
    """The body of one response, read once; closing it closes its generator first."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response
        self._chunks: AsyncGenerator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._chunks = self._response.aiter_stream()
        return self._chunks

    async def aclose(self) -> None:
        if self._chunks is not None:
            await self._chunks.aclose()
        await self._response.aclose()


def check_url(url: str | httpx2.URL) -> httpx2.URL:
    """Parse a URL and refuse what must not be sent.

    Raises:
        httpx2.InvalidURL: control characters, user info, no host, a bad port.
        httpx2.UnsupportedProtocol: neither http nor https.

    Contract: engine.md §32, row "URL".
    """
    if isinstance(url, str) and _CONTROL.search(url):
        raise httpx2.InvalidURL("URL with a line break or NUL")
    parsed = httpx2.URL(url)
    if parsed.userinfo:
        raise httpx2.InvalidURL("URL with user info")
    if parsed.scheme not in ("http", "https"):
        raise httpx2.UnsupportedProtocol(f"not an http(s) URL: '{str(parsed)[:200]}'")
    if not parsed.host:
        raise httpx2.InvalidURL("URL without a host")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise httpx2.InvalidURL(f"port out of range: {parsed.port}")
    return parsed

"""The HTTP client everything inside uses to reach the outside.

One client serves one caller of the egress policy (engine.md §32). It never follows the proxies of
the environment, keeps no cookies, and closes the socket at once when the caller is cancelled.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import aclosing

import httpx2
import msgspec
import trio

from pipelit.errors import PipelitError
from pipelit.net.backend import EgressGuard
from pipelit.net.egress import Caller, EgressBlocked, EgressPolicy
from pipelit.net.resolver import Resolver, SystemResolver
from pipelit.net.transport import CheckedTransport, check_url

__all__ = ["EgressBlocked", "HttpClient", "HttpError", "HttpRequest", "HttpResponse"]

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONTROL = re.compile(r"[\r\n\0]")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token
_CONTENT_HEADERS = frozenset({"content-length", "content-type", "transfer-encoding"})
_SECRET_HEADERS = frozenset({"authorization", "cookie"})


class HttpError(PipelitError):
    """No usable answer. `code`: the class name an observer may see, e.g. `ConnectError`."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. `timeout`: seconds for everything; `max_bytes`: of the decoded body."""

    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    timeout: float = 30.0
    max_bytes: int = 262_144
    max_redirects: int = 0


class HttpResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `body` is decoded, and cut at the request's limit if `truncated`.

    `headers` have lower-case names; values of repeated ones are joined by a comma.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool
    url: str


class HttpClient:
    """Sends requests for one caller. `aclose` when no request is under way any more."""

    def __init__(
        self,
        policy: EgressPolicy,
        caller: Caller,
        *,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        user_agent: str = "pipelit",
        on_blocked: Callable[[Caller], object] = lambda _: None,
    ) -> None:
        self._guard = EgressGuard(policy, caller, resolver or SystemResolver(), on_blocked)
        self._ssl = ssl_context or httpx2.create_ssl_context()
        self._transport = CheckedTransport(self._guard, self._ssl)
        self._user_agent = user_agent

    async def request(self, request: HttpRequest) -> HttpResponse:
        """Send *request*, follow at most `max_redirects`, and read the body.

        Raises:
            EgressBlocked: an address is refused; not a byte was sent to it.
            HttpError: anything else that is not an answer.
        """
        try:
            with trio.fail_after(request.timeout):
                return await self._follow(request)
        except trio.TooSlowError:
            message = f"no complete answer within {request.timeout:g} s"
            raise HttpError(message, code="TimeoutException") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise HttpError(_detail(error), code=type(error).__name__) from error

    def raw_client(self, *, timeout: float | None = None) -> httpx2.AsyncClient:
        """Return a client for an SDK's `http_client=`; whoever asked for it closes it.

        Its connections pass the same checks; it has its own pool and follows no redirect.

        Args:
            timeout: seconds without a byte before the call fails; None: no limit.
        """
        return httpx2.AsyncClient(
            transport=CheckedTransport(self._guard, self._ssl),
            timeout=httpx2.Timeout(timeout),
            trust_env=False,
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._transport.aclose()

    async def _follow(self, request: HttpRequest) -> HttpResponse:
        hop = self._build(request)
        for left in range(min(request.max_redirects, MAX_REDIRECTS), -1, -1):
            response = await self._transport.handle_async_request(hop)
            try:
                response.request = hop
                target = response.headers.get("location")
                is_redirect = response.status_code in _REDIRECTS and request.max_redirects > 0
                if target is None or not is_redirect:
                    return await _read(response, hop, request.max_bytes)
                if left:
                    hop = redirect(hop, response.status_code, target)
            finally:
                await response.aclose()
        raise httpx2.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects", request=hop)

    def _build(self, request: HttpRequest) -> httpx2.Request:
        fields = {
            "accept": ("accept", "*/*"),
            "accept-encoding": ("accept-encoding", "gzip, deflate"),
            "user-agent": ("user-agent", self._user_agent),
        }
        for name, value in request.headers.items():
            if not _HEADER_NAME.fullmatch(name) or _CONTROL.search(value):
                raise httpx2.LocalProtocolError(f"invalid header {name!r}")
            fields[name.lower()] = (name, value)
        return httpx2.Request(
            request.method,
            check_url(request.url),
            headers=[(name.encode(), value.encode()) for name, value in fields.values()],
            content=request.body or None,
        )


def redirect(request: httpx2.Request, status: int, location: str) -> httpx2.Request:
    """Build the request a redirect asks for. Pure.

    A POST answered 301 or 302, and anything answered 303 but HEAD, becomes a GET without body.
    `Authorization` and `Cookie` do not cross origins. Contract: engine.md §32.
    """
    url = check_url(request.url.join(location))
    becomes_get = (status == 303 and request.method != "HEAD") or (
        status in (301, 302) and request.method == "POST"
    )
    dropped = {"host"}
    if becomes_get:
        dropped |= _CONTENT_HEADERS
    if _origin(url) != _origin(request.url):
        dropped |= _SECRET_HEADERS
    headers = [
        (name, value)
        for name, value in request.headers.raw
        if name.lower().decode("ascii") not in dropped
    ]
    return httpx2.Request(
        "GET" if becomes_get else request.method,
        url,
        headers=headers,
        content=None if becomes_get else request.content or None,
    )


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


async def _read(response: httpx2.Response, request: httpx2.Request, max_bytes: int) -> HttpResponse:
    body = bytearray()
    async with aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > max_bytes:
                break
    return HttpResponse(
        status=response.status_code,
        headers={name.lower(): value for name, value in response.headers.items()},
        body=bytes(body[:max_bytes]),
        truncated=len(body) > max_bytes,
        url=str(request.url),
    )


def _detail(error: BaseException) -> str:
    """Return the text of *error*, or of the first cause that has one."""
    cause: BaseException | None = error
    while cause is not None:
        if str(cause):
            return str(cause)
        # httpcore2 raises `from None`, which hides the cause but keeps it as context.
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__

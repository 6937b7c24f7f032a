"""One model call over a provider's SDK: send, read the answer, translate what goes wrong.

What the families of providers call things is in `openai_` and `anthropic_`; this module knows
only the order of events. The SDK builds the request, authenticates and retries; its modules are
imported when the first call needs them, in a thread, because that takes a second.
Contract: engine.md §11.1, §11.2, §21.2, §21.7.
"""

import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import httpx2
import msgspec
import trio

from pipelit.engine.messages import MessageUsage
from pipelit.errors import PipelitError
from pipelit.llm.answer import AnswerDecoder, ServerEvent, unreadable
from pipelit.llm.types import (
    ContextOverflow,
    ModelRequest,
    ModelResponse,
    ProviderError,
    ProviderSpec,
)
from pipelit.net.egress import EgressBlocked

MAX_PAUSES = 10
"""An answer that pauses more often is taken as it is."""
MAX_RETRIES = 10
"""More retries of the SDK than this are not granted."""

RESERVED_HEADERS = frozenset({"authorization", "x-api-key", "host"})
"""Custom headers never replace these."""

_NOT_RETRIED = frozenset({400, 401, 403, 404, 422})
_TRANSIENT = frozenset({408, 409, 429})
_NAMES_STREAM = re.compile(r"\bstream(?:s|ed|ing|_options)?\b", re.IGNORECASE)
# OpenAI's code and text, its imitations', Anthropic's text.
_NAMES_OVERFLOW = re.compile(
    r"context_length_exceeded|maximum context length|context window|prompt is too long"
    r"|exceeds? the context|too many tokens",
    re.IGNORECASE,
)
_MAX_REFUSALS = 10_000
_CONNECT_SECONDS = 30.0
_DRAIN_SECONDS = 0.25


class Fold(Protocol):
    """Adds up the events of one answer."""

    @property
    def is_complete(self) -> bool:
        """Whether the provider said that nothing more comes."""
        ...

    @property
    def is_usable(self) -> bool:
        """Whether what came so far is an answer if the connection ends now."""
        ...

    def add(self, event: ServerEvent) -> str:
        """Take one event and return the text it brought, often none."""
        ...

    def add_body(self, body: bytes) -> None:
        """Take an answer that came as one JSON body."""
        ...

    def response(self) -> ModelResponse:
        """Return what the events added up to."""
        ...


Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[httpx2.Response]]


class Connection(msgspec.Struct, frozen=True):
    """A ready SDK client. `send` posts a body and returns the answer, unread.

    `sdk` is the SDK's module; its exception classes are told apart by it.
    """

    send: Send
    sdk: Any


class Dialect(Protocol):
    """How a family of providers is spoken to."""

    def connect(self, spec: ProviderSpec, http: httpx2.AsyncClient) -> Connection:
        """Import the SDK and build its client. Takes long: called in a thread."""
        ...

    def body(self, request: ModelRequest, spec: ProviderSpec, *, stream: bool) -> dict[str, Any]:
        """Build the request's JSON."""
        ...

    def fold(self, request: ModelRequest) -> Fold:
        """Begin to read an answer to *request*."""
        ...


class StreamRefused(ProviderError):
    """The provider declined the request and named `stream`: it wants to be asked without."""


class StreamRefusals:
    """Remembers for which credential and model streaming was refused, until the server restarts.

    Bounded: the oldest knowledge is dropped, which costs one refused request.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, str], None] = OrderedDict()

    def __contains__(self, key: tuple[int, str]) -> bool:
        return key in self._known

    def add(self, key: tuple[int, str]) -> None:
        """Remember that *key* = (credential id, model) refuses streams."""
        self._known[key] = None
        if len(self._known) > _MAX_REFUSALS:
            self._known.popitem(last=False)


class SdkProvider:
    """A provider reached through its SDK. Holds no per-call state; shared by any number of calls.

    Cancelling a call closes its connection at once.
    """

    def __init__(
        self,
        spec: ProviderSpec,
        dialect: Dialect,
        http: httpx2.AsyncClient,
        refusals: StreamRefusals,
    ) -> None:
        self._spec = spec
        self._dialect = dialect
        self._http = http
        self._refusals = refusals
        self._connecting = trio.Lock()
        self._connection: Connection | None = None

    async def complete(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None],
        on_alive: Callable[[], None],
    ) -> ModelResponse:
        """Call the model; see `pipelit.llm.types.Provider`.

        An answer that does not stream brings no `on_text`.
        """
        response = await self._ask(request, on_text, on_alive)
        for _ in range(MAX_PAUSES):
            if not response.paused:
                break
            begun = (*request.begun, *response.paused)
            request = msgspec.structs.replace(request, begun=begun)
            response = _joined(response, await self._ask(request, on_text, on_alive))
        return response

    async def _ask(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None],
        on_alive: Callable[[], None],
    ) -> ModelResponse:
        """Call the model, without a stream if it refuses to stream."""
        key = (self._spec.credential_id, request.model)
        if key not in self._refusals:
            with suppress(StreamRefused):
                return await self._call(request, on_text, on_alive, stream=True)
        response = await self._call(request, on_text, on_alive, stream=False)
        self._refusals.add(key)
        return response

    async def _call(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None],
        on_alive: Callable[[], None],
        *,
        stream: bool,
    ) -> ModelResponse:
        connection = await self._connect()
        body = self._dialect.body(request, self._spec, stream=stream)
        fold = self._dialect.fold(request)
        try:
            response = await connection.send(body)
            try:
                await _read(response, fold, on_text, on_alive)
            finally:
                await response.aclose()
        except ProviderError:
            raise
        except Exception as error:
            # The border: whatever the SDK and the HTTP library raise becomes ours here, once.
            raise translate(error, connection.sdk) from error
        return fold.response()

    async def _connect(self) -> Connection:
        async with self._connecting:
            if self._connection is None:
                # An import that goes on after we left harms nobody: the next call finds it done.
                self._connection = await trio.to_thread.run_sync(
                    self._dialect.connect, self._spec, self._http, abandon_on_cancel=True
                )
            return self._connection


def _joined(first: ModelResponse, second: ModelResponse) -> ModelResponse:
    """Return an answer that came in two parts. Each part was paid for."""
    usage = second.usage
    if first.usage is not None and usage is not None:
        usage = MessageUsage(
            first.usage.input_tokens + usage.input_tokens,
            first.usage.output_tokens + usage.output_tokens,
            first.usage.total_tokens + usage.total_tokens,
        )
    return msgspec.structs.replace(
        second, text=first.text + second.text, usage=usage, calls=(*first.calls, *second.calls)
    )


async def _read(
    response: httpx2.Response,
    fold: Fold,
    on_text: Callable[[str], None],
    on_alive: Callable[[], None],
) -> None:
    decoder = AnswerDecoder()
    failure: ProviderError | None = None
    chunks = response.aiter_bytes()
    async for chunk in chunks:
        on_alive()
        try:
            for event in decoder.feed(chunk):
                if text := fold.add(event):
                    on_text(text)
        except ProviderError as error:
            failure = error
        if failure is not None or fold.is_complete:
            break
    await _finish(chunks, patience=0 if failure is not None else _DRAIN_SECONDS)
    if failure is not None:
        raise failure
    if decoder.body is not None:
        fold.add_body(decoder.body)
    elif not fold.is_usable:
        raise unreadable("broke off")


async def _finish(chunks: AsyncIterator[bytes], *, patience: float) -> None:
    # A connection can be used again only if its last bytes are read; they are due at once. If
    # they do not come, or are not wanted, the cancellation ends every generator of the HTTP
    # library down to the socket, which closing the outermost one would not.
    with trio.move_on_after(patience), suppress(httpx2.HTTPError):
        async for _ in chunks:
            pass


def custom_headers(spec: ProviderSpec) -> dict[str, str]:
    """Return the credential's own headers without those it must not set."""
    return {
        name: value
        for name, value in spec.custom_headers.items()
        if name.strip().lower() not in RESERVED_HEADERS
    }


def http_timeout(spec: ProviderSpec) -> httpx2.Timeout:
    """Return the limits of a call: so long without a byte, and it fails.

    Waiting for a free connection is not the provider's fault and has the node's limits only.
    """
    connect = min(spec.timeout, _CONNECT_SECONDS)
    return httpx2.Timeout(spec.timeout, connect=connect, pool=None)


def translate(error: Exception, sdk: Any) -> ProviderError:
    """Turn what *sdk* or the HTTP library raised into ours.

    The message never holds the provider's own text.
    """
    if isinstance(error, sdk.APIStatusError):
        return _refused(error)
    if isinstance(error, EgressBlocked):
        return ProviderError(str(error), code=error.code, retryable=False)
    if isinstance(error, sdk.APITimeoutError | httpx2.TimeoutException):
        return _failed("provider did not answer in time", "APITimeoutError")
    if isinstance(error, sdk.APIConnectionError | httpx2.HTTPError):
        return _failed("connection to the provider failed", "APIConnectionError")
    if isinstance(error, PipelitError):
        return _failed(str(error), type(error).__name__)
    return _failed("request to the provider failed", type(error).__name__)


def _refused(error: Any) -> ProviderError:
    status: int = error.status_code
    is_final = 400 <= status < 500 and status not in _TRANSIENT
    said = _text_of(error.response) if is_final else ""
    kind = ProviderError
    if _NAMES_OVERFLOW.search(said):
        kind = ContextOverflow
    elif _NAMES_STREAM.search(said):
        kind = StreamRefused
    return kind(
        f"provider returned HTTP {status}",
        code=type(error).__name__,
        retryable=status not in _NOT_RETRIED,
        status=status,
    )


def _text_of(response: httpx2.Response) -> str:
    try:
        return response.text[:10_000]
    except httpx2.StreamError:
        return ""  # the body was not read


def _failed(message: str, code: str) -> ProviderError:
    return ProviderError(message, code=code, retryable=True)

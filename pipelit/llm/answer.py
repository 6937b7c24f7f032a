"""The bytes of a provider's answer: a stream of server-sent events, or one JSON body.

Pure: knows neither sockets nor what a provider means by an event.
Contract: engine.md §21.7. Format: WHATWG HTML, server-sent events.
"""

import msgspec

from pipelit.engine.messages import MessageUsage
from pipelit.llm.types import ProviderError

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""An answer that grows beyond this is broken off, so that no provider can fill our memory."""

MAX_TOKENS_TOLD = 2**53
"""No call uses more: what a provider claims beyond it would only overflow our sums."""


class ServerEvent(msgspec.Struct, frozen=True):
    """One event of a stream: its type (empty unless given) and its data lines, joined."""

    name: str
    data: str


class AnswerDecoder:
    """Cuts an answer into events as its bytes come in.

    A body whose first character is `{` is no event stream: it yields no events and is found in
    `body` at the end, whatever its content type says. Owned by one call.
    """

    def __init__(self) -> None:
        self._size = 0
        self._rest = bytearray()
        self._is_stream: bool | None = None  # None until the first character is seen
        self._name = ""
        self._data: list[str] = []

    @property
    def body(self) -> bytes | None:
        """The whole answer if it came as one body, else None."""
        return bytes(self._rest) if self._is_stream is False else None

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Take the next bytes and return the events they complete.

        Raises:
            ProviderError: the answer is too large.
        """
        self._size += len(chunk)
        if self._size > MAX_ANSWER_BYTES:
            raise unreadable(f"is larger than {MAX_ANSWER_BYTES} bytes")
        self._rest += chunk
        if self._is_stream is None:
            first = self._rest.lstrip()[:1]
            self._is_stream = None if not first else first != b"{"
        return self._events() if self._is_stream and b"\n" in chunk else []

    def _events(self) -> list[ServerEvent]:
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        events = (self._line(bytes(line).removesuffix(b"\r")) for line in lines)
        return [event for event in events if event is not None]

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._end()
        field, _, value = line.decode("utf-8", errors="replace").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None

    def _end(self) -> ServerEvent | None:
        name, data = self._name, self._data
        self._name, self._data = "", []
        return ServerEvent(name, "\n".join(data)) if data else None


def token_usage(given: int | None, made: int | None) -> MessageUsage:
    """Return what a call used as its provider tells it, within bounds that can be added up."""
    prompt, answer = (max(0, min(count or 0, MAX_TOKENS_TOLD)) for count in (given, made))
    return MessageUsage(prompt, answer, prompt + answer)


def unreadable(what: str) -> ProviderError:
    """Build the error for an answer that is not one; *what* completes `provider's answer …`."""
    return ProviderError(
        f"provider's answer {what}", code="APIResponseValidationError", retryable=True
    )

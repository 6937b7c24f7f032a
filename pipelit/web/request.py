"""A request as it comes from the server, and the bounded place its body arrives in."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec
import trio
from hypercorn.typing import HTTPScope, WebsocketScope

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BEARER = re.compile(r"bearer ([^ ].*)", re.IGNORECASE | re.DOTALL)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a request but its body."""

    method: str
    raw_path: str
    """Percent-encoded, without the query."""
    query: Mapping[str, str]
    """The last of a repeated parameter; empty values are kept."""
    headers: Mapping[str, str]
    """Names in lower case; values of a repeated header joined with a comma."""
    peer: str

    @property
    def bearer(self) -> str | None:
        """The key of a well-formed `Authorization: Bearer` header: one space, not empty."""
        match = _BEARER.fullmatch(self.headers.get("authorization", ""))
        return match[1] if match else None

    @property
    def valid_request_id(self) -> str | None:
        """The caller's `X-Request-ID` if it may be used. Contract: README.md §1."""
        given = self.headers.get("x-request-id", "")
        return given if _REQUEST_ID.fullmatch(given) else None


def read_head(scope: HTTPScope | WebsocketScope) -> Head:
    """Read the head of a request out of the server's *scope*."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query = parse_qsl(
        scope["query_string"].decode("latin-1"),
        keep_blank_values=True,
        errors="surrogateescape",
        max_num_fields=None,
    )
    client = scope.get("client")
    return Head(
        method=scope["method"] if scope["type"] == "http" else "GET",
        raw_path=scope["raw_path"].decode("latin-1"),
        query=dict(query),
        headers=headers,
        peer=client[0] if client else "",
    )


class BodyInbox:
    """Takes a body in as it comes, never holding more than its limit.

    Written by the connection's listening task, read by the request's task. What arrives after the
    limit was passed is thrown away, so that the client gets to read its 413.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = bytearray()
        self._decided = trio.Event()
        self.ended = trio.Event()
        """The client has sent all of it."""
        self.is_too_large = False

    def feed(self, piece: bytes, *, more: bool) -> None:
        """Take the next piece."""
        if not self.is_too_large:
            self._data += piece
            if len(self._data) > self._max_bytes:
                self.is_too_large = True
                self._data.clear()
                self._decided.set()
        if not more:
            self.ended.set()
            self._decided.set()

    async def read(self) -> bytes | None:
        """Wait for the whole body; None if it is over the limit."""
        await self._decided.wait()
        return None if self.is_too_large else bytes(self._data)

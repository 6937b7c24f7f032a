"""What a handler may answer beyond a plain value."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

_ItemT = TypeVar("_ItemT")


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer whose status or headers differ from the route's declaration.

    `body` is encoded as JSON like any other handler result; None sends no body.
    """

    status: int
    body: object = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class RawResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is bytes already: a replayed response, a page, metrics text."""

    status: int
    content: bytes
    content_type: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


SendChunk = Callable[[bytes], Awaitable[None]]


class StreamResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An answer written piece by piece.

    `produce` runs in the request's task and ends the response by returning. It is cancelled when
    the client leaves; a client that takes nothing for 30 s is made to leave by the kernel.
    """

    produce: Callable[[SendChunk], Awaitable[None]]
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Page(msgspec.Struct, Generic[_ItemT], frozen=True, kw_only=True):
    """The list envelope. Contract: README.md §5.

    `total` counts everything that matches the filters and is visible, before paging.
    """

    items: Sequence[_ItemT]
    total: int

"""What travels between actors, and how an actor ended.

Messages are frozen and deeply immutable: tuples, never lists. Nothing here knows how they travel.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Message(msgspec.Struct, frozen=True):
    """A message: a fact (`NodeEnded`) or a wish (`Cancel`). Subclass with `frozen=True`."""


class Request(Message, Generic[R], frozen=True):
    """A message that expects one reply of type `R`."""

    if TYPE_CHECKING:

        def reply_type(self) -> R:
            """Tie the type of the reply to the request; there is nothing to call."""


class Asked(Protocol[R_co]):
    """A request seen by its asker, who may use the reply as something wider.

    The callee sees `Request[R]`, which is invariant, so a wrong reply is a type error.
    """

    def reply_type(self) -> R_co:
        """Tie the type of the reply to the request; there is nothing to call."""


class ExitReason(StrEnum):
    """How an incarnation ended. Contract: operations.md §1, `reason`."""

    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"
    KILLED = "killed"
    CRASHED = "crashed"
    ESCALATED = "escalated"
    PASSIVATED = "passivated"


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An exception as text. The object itself would pin frames, locals and secrets."""

    type: str
    message: str
    """At most 500 characters."""
    traceback: str


class Exit(msgspec.Struct, frozen=True):
    """How an actor ended."""

    reason: ExitReason
    why: str | None = None
    """The words given to `stop` or `cancel`."""
    error: ErrorInfo | None = None
    """The crash, if it was one."""

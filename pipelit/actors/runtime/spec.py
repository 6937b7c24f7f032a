"""The supervision tree as data. A tree is checked when it is written down, not when it runs."""

import math
from collections.abc import Callable
from typing import Generic, Never, TypeAlias, TypeVar

import msgspec

from pipelit.actors.runtime.actor import Actor
from pipelit.actors.runtime.lifecycle import DEFAULT_GRACE
from pipelit.actors.runtime.mailbox import Mailbox
from pipelit.actors.runtime.messages import Message
from pipelit.actors.runtime.records import Detail
from pipelit.actors.runtime.restart import Backoff, Decide, OnLimit, Restart, RestartLimit

M_contra = TypeVar("M_contra", bound=Message, contravariant=True)


class ChildSpec(msgspec.Struct, Generic[M_contra], frozen=True, kw_only=True):
    """One actor. `start` makes a fresh instance for each incarnation; it does no I/O."""

    id: str
    kind: str
    start: Callable[[], Actor[M_contra]]
    restart: Restart = Restart.PERMANENT
    mailbox: Mailbox = Mailbox()
    grace: float = DEFAULT_GRACE
    """Seconds between the wish to stop and cancellation."""
    backoff: Backoff = Backoff()
    limit: RestartLimit | None = None
    """Own restart window. Without it a static child shares its supervisor's; one that came at run
    time has its own with the supervisor's numbers and is stopped when it exceeds them."""
    decide: Decide | None = None
    """What to do about a crash; default: restart, as the policy and the limit allow."""
    detail: Detail = {}
    """Correlation ids: they are in every record of this actor."""

    def __post_init__(self) -> None:
        check_id(self.id)


class SupervisorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor and its static children, started top to bottom and stopped bottom to top."""

    id: str
    children: "tuple[AnySpec, ...]" = ()
    limit: RestartLimit = RestartLimit()
    backoff: Backoff = Backoff()
    grace: float = math.inf
    """Seconds all children together get to stop; each has its own grace besides."""
    detail: Detail = {}

    def __post_init__(self) -> None:
        check_id(self.id)
        ids = [child.id for child in self.children]
        if len(ids) != len(set(ids)):
            raise ValueError(f"{self.id}: two children with one id")


class FamilySpec(msgspec.Struct, Generic[M_contra], frozen=True, kw_only=True):
    """Actors addressed by key, started by the first message and passivated when idle."""

    id: str
    kind: str
    start: Callable[[str], Actor[M_contra]]
    idle_after: float = math.inf
    """Seconds without a message from outside after which a member without own tasks ends."""
    mailbox: Mailbox = Mailbox()
    grace: float = DEFAULT_GRACE
    restart: Restart = Restart.TRANSIENT
    backoff: Backoff = Backoff()
    limit: RestartLimit = RestartLimit(then=OnLimit.STOP_CHILD)
    """Each member has its own window."""
    decide: Decide | None = None
    detail: Callable[[str], Detail] | None = None
    """Correlation ids of the member with this key."""

    def __post_init__(self) -> None:
        check_id(self.id)


AnySpec: TypeAlias = "ChildSpec[Never] | SupervisorSpec | FamilySpec[Never]"


def check_id(value: str) -> None:
    """Raise `ValueError` unless *value* can be one step of a path."""
    if not value or "/" in value:
        raise ValueError(f"an id is text without a slash, not {value!r}")

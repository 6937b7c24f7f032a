"""What somebody outside the server saw of it: all that the auditor reads.

Whoever drives a server fills it in: the simulation from a door in memory, anybody else over HTTP
and WebSocket. Times are Unix seconds on the wall clock, or the Trio clock where it says so.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

TERMINAL = ("completed", "failed", "cancelled")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One wish to start an execution, with all its repeated requests."""

    mark: str
    """Text that is in the trigger payload of this start and of no other."""
    accepted: tuple[str, ...]
    """Ids in the answers with a 2xx; several if the request was repeated."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as some answer showed it."""

    execution_id: str
    status: str
    completed_at: str | None
    how: str
    """`list`, `detail`, `cancel`, …"""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one execution as one subscriber got them, in the order they came.

    `since`: the first subscription's; later ones go on after the last event heard. `complete`: the
    subscriber stayed until the terminal event. `live`: it asked for no replay, so it may have
    missed what happened between two connections.
    """

    execution_id: str
    since: int
    events: tuple[dict[str, Any], ...]
    complete: bool
    live: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """An execution at the end: its detail and its stored events."""

    detail: dict[str, Any]
    events: tuple[dict[str, Any], ...]

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.detail["execution_id"])

    @property
    def status(self) -> str:
        """Its status."""
        return str(self.detail["status"])


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a person that was answered with a 200."""

    execution_id: str
    task_id: str


class ModelCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that reached the provider. Tokens are 0 if the answer never left it."""

    execution_id: str
    input_tokens: int
    output_tokens: int


class OutsideCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a workflow that reached the network, with its idempotency key."""

    key: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduled job at the end. `wall`: what the wall clock said then, as the API shows times."""

    detail: dict[str, Any]
    wall: str


class Epic(msgspec.Struct, frozen=True, kw_only=True):
    """An epic at the end."""

    detail: dict[str, Any]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Everything. Parts that a driver cannot know stay empty and are not checked."""

    starts: tuple[Start, ...] = ()
    seen: tuple[Seen, ...] = ()
    heard: tuple[Heard, ...] = ()
    runs: tuple[Run, ...] = ()
    answered: tuple[Answered, ...] = ()
    cancelled: tuple[str, ...] = ()
    """Executions whose cancel request was answered with `cancelled`."""
    model_calls: tuple[ModelCall, ...] | None = None
    """None: the driver does not see the provider's side."""
    price: tuple[float, float] = (0.0, 0.0)
    """Micro-dollars per token that goes in, and that comes out."""
    disturbed: frozenset[str] = frozenset()
    """Executions whose actor or server ended in the middle: usage of calls then is unknown."""
    outside_calls: tuple[OutsideCall, ...] | None = None
    jobs: tuple[Job, ...] = ()
    epics: tuple[Epic, ...] = ()
    handlers: Mapping[str, int] | None = None
    """How many executions handle each failure of a workflow, by slug. None: unknown."""
    clock_jumped: bool = False
    live_lost: bool = False
    """The server crashed where live events pass: who asked for no replay may have missed some."""
    leaks: tuple[str, ...] = ()
    """What was found left over when nothing went on any more, one sentence each."""
    faults: tuple[str, ...] = ()
    """What no client may ever see: a 500, a broken frame, a crash of the driver's side."""

"""What one step of a run changes: log rows, events, how it ends. Contract: engine.md §8.4, §9."""

from typing import Any, Literal

import msgspec

from pipelit.engine.outcome import Failure
from pipelit.engine.records import ROOT, Record

EndStatus = Literal["completed", "failed", "cancelled"]
Kind = Literal["human_confirmation", "interrupt_before", "interrupt_after"]


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """A log row, before it has its time."""

    node_id: str
    status: Literal["success", "failed", "skipped"]
    input: Any = None
    output: Any = None
    error: str = ""
    error_code: str | None = None
    metadata: Any = None
    duration_ms: int = 0


class Event(msgspec.Struct, frozen=True):
    """An event, before it has its number."""

    type: str
    data: dict[str, Any]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question put to a person. `kind`: what asks; `expires_at`: Unix seconds."""

    task_id: str
    node_id: str
    iteration: str = ROOT
    kind: Kind
    prompt: str
    expires_at: float


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal status with what goes with it. `failed_node`: whose failure ended the run."""

    status: EndStatus
    final_output: Any = None
    error_message: str = ""
    error_code: str | None = None
    failed_node: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has ended. `recovered`: it was begun anew after a crash."""

    node_id: str
    number: int
    duration_ms: int
    recovered: bool = False


class Failed(msgspec.Struct, frozen=True):
    """An attempt that failed for good, and how."""

    attempt: Attempt
    failure: Failure


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a run, to be committed in one transaction.

    `started`: nodes to run after it. `interrupted`: nothing goes on before a person answers.
    `broken`: a loop that cannot go on; its failure is to end the run.
    """

    records: tuple[Record, ...] = ()
    events: tuple[Event, ...] = ()
    logs: tuple[Log, ...] = ()
    questions: tuple[Question, ...] = ()
    started: tuple[str, ...] = ()
    interrupted: bool = False
    broken: Failed | None = None
    ending: Ending | None = None

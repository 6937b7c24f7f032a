"""What the journal of an execution says: one record for each thing that became true.

Contract: engine.md §10.1.
"""

from typing import Any, TypeAlias

import msgspec

from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Outcome, Usage
from pipelit.engine.questions import When

ROOT = "0"
"""The iteration of root scope."""


class _OfNode(msgspec.Struct, frozen=True, kw_only=True):
    """A record about one activation: a node in an iteration (`ROOT`, or `3`, `3.1` in loops)."""

    node_id: str
    iteration: str = ROOT


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Attempts whose `running` was announced: the start of the run, of a slot, of a retry."""

    nodes: tuple[str, ...]


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    """`pending` became `running`: the trigger's result and the first nodes."""

    trigger: dict[str, Any]
    messages: tuple[ChatMessage, ...] = ()
    started: tuple[str, ...] = ()


class AttemptFailed(_OfNode, frozen=True, kw_only=True, tag="attempt_failed"):
    """An attempt failed and will be tried again at `retry_at` (Unix seconds)."""

    attempt: int
    retry_at: float
    usage: Usage = Usage()


class Waiting(_OfNode, frozen=True, kw_only=True, tag="waiting"):
    """A node ended its work and waits until `resume_at` (Unix seconds) to succeed."""

    resume_at: float
    outcome: Outcome
    attempt: int = 0
    duration_ms: int = 0


class Looped(_OfNode, frozen=True, kw_only=True, tag="looped"):
    """A loop knows its items, and runs until its last iteration is over.

    `outcome` holds the items, and the report for the log row. `at`: when it began, Unix seconds.
    """

    outcome: Outcome
    at: float
    attempt: int = 0
    recovered: bool = False
    started: tuple[str, ...] = ()


class Iterating(_OfNode, frozen=True, kw_only=True, tag="iterating"):
    """An iteration of a loop begins; `iteration` is that of the loop itself."""

    index: int
    started: tuple[str, ...] = ()


class NodeSucceeded(_OfNode, frozen=True, kw_only=True, tag="succeeded"):
    """A node's result. `outcome.report` is left out: it is in the log row.

    `at`: Unix seconds; `duration_ms`: of the attempt.
    """

    outcome: Outcome
    at: float = 0.0
    duration_ms: int = 0
    usage: Usage = Usage()
    started: tuple[str, ...] = ()


class NodeFailed(_OfNode, frozen=True, kw_only=True, tag="failed"):
    """A permanent failure that an error handler takes over. `at`: Unix seconds."""

    code: str
    message: str
    attempts: int = 1
    at: float = 0.0
    duration_ms: int = 0
    usage: Usage = Usage()
    started: tuple[str, ...] = ()


class Asked(_OfNode, frozen=True, kw_only=True, tag="asked"):
    """A question to a person is open: the node, or what follows it, waits for the answer."""

    task_id: str
    when: When


class Answered(_OfNode, frozen=True, kw_only=True, tag="answered"):
    """A person's answer that lets the branch go on."""

    task_id: str
    when: When
    text: str
    started: tuple[str, ...] = ()


Record: TypeAlias = (
    Begun
    | Started
    | AttemptFailed
    | Waiting
    | Looped
    | Iterating
    | NodeSucceeded
    | NodeFailed
    | Asked
    | Answered
)


def record_kind(record: Record) -> str:
    """Return the store's kind: `result` for the one final record of an activation."""
    return "result" if isinstance(record, NodeSucceeded | NodeFailed) else "progress"


def activation(record: Record) -> tuple[str, str]:
    """Return the node and the iteration a record is about; no node for those about several."""
    match record:
        case Begun() | Started():
            return "", ROOT
        case _:
            return record.node_id, record.iteration


def parse_record(stored: Any) -> Record:
    """Read a stored record back."""
    record: Record = msgspec.convert(stored, Record)
    return record

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


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Attempts whose `running` was announced: the start of the run, of a slot, of a retry."""

    nodes: tuple[str, ...]


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    """`pending` became `running`: the trigger's result and the first nodes."""

    trigger: dict[str, Any]
    messages: tuple[ChatMessage, ...] = ()
    started: tuple[str, ...] = ()


class AttemptFailed(msgspec.Struct, frozen=True, kw_only=True, tag="attempt_failed"):
    """An attempt failed and will be tried again at `retry_at` (Unix seconds)."""

    node_id: str
    attempt: int
    retry_at: float
    usage: Usage = Usage()


class Waiting(msgspec.Struct, frozen=True, kw_only=True, tag="waiting"):
    """A node ended its work and waits until `resume_at` (Unix seconds) to succeed."""

    node_id: str
    resume_at: float
    outcome: Outcome
    attempt: int = 0
    duration_ms: int = 0


class NodeSucceeded(msgspec.Struct, frozen=True, kw_only=True, tag="succeeded"):
    """A node's result. `outcome.report` is left out: it is in the log row."""

    node_id: str
    outcome: Outcome
    usage: Usage = Usage()
    started: tuple[str, ...] = ()


class NodeFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A permanent failure that an error handler takes over. `at`: Unix seconds."""

    node_id: str
    code: str
    message: str
    attempts: int = 1
    at: float = 0.0
    usage: Usage = Usage()
    started: tuple[str, ...] = ()


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="asked"):
    """A question to a person is open: the node, or what follows it, waits for the answer."""

    node_id: str
    task_id: str
    when: When


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """A person's answer that lets the branch go on."""

    node_id: str
    task_id: str
    when: When
    text: str
    started: tuple[str, ...] = ()


Record: TypeAlias = (
    Begun | Started | AttemptFailed | Waiting | NodeSucceeded | NodeFailed | Asked | Answered
)


def record_kind(record: Record) -> str:
    """Return the store's kind: `result` for the one final record of an activation."""
    return "result" if isinstance(record, NodeSucceeded | NodeFailed) else "progress"


def record_node(record: Record) -> str:
    """Return the node a record is about; empty for those about several."""
    match record:
        case Begun() | Started():
            return ""
        case _:
            return record.node_id


def parse_record(stored: Any) -> Record:
    """Read a stored record back."""
    record: Record = msgspec.convert(stored, Record)
    return record

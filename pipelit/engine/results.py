"""How the nodes of a run ended, as other nodes see it. Contract: engine.md §8.5."""

from typing import Any

import msgspec

from pipelit.engine.instants import instant_text
from pipelit.engine.records import ROOT, NodeFailed, NodeSucceeded, Waiting
from pipelit.engine.routing import Ending


class NodeResult(msgspec.Struct, frozen=True):
    """How a node of the run ended. Instants are Unix seconds; None for one that never ran."""

    ending: Ending
    ports: dict[str, Any] = {}
    error: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}
    started_at: float | None = None
    completed_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `node_results` holds."""
        instants = (self.started_at, self.completed_at)
        started_at, completed_at = (None if at is None else instant_text(at) for at in instants)
        return {
            "status": self.ending,
            "data": self.ports,
            "error": self.error,
            "metadata": self.metadata,
            "started_at": started_at,
            "completed_at": completed_at,
        }


def succeeded(record: NodeSucceeded, *, attempt: int, waited: Waiting | None) -> NodeResult:
    """Return the result of a success. `waited`: how it waited before it succeeded."""
    worked_until = record.at
    if waited is not None:
        worked_until = waited.resume_at - (waited.outcome.delay_seconds or 0)
    return NodeResult(
        "success",
        record.outcome.ports,
        metadata=_metadata(record, attempt),
        started_at=worked_until - record.duration_ms / 1000,
        completed_at=record.at,
    )


def failed(record: NodeFailed, *, component_type: str) -> NodeResult:
    """Return the result of a failure that is handled."""
    error = {
        "code": record.code,
        "message": record.message,
        "details": {
            "component_type": component_type,
            "attempts": record.attempts,
            "at": record.at,
        },
        "recoverable": False,
        "node_id": record.node_id,
    }
    return NodeResult(
        "failed",
        error=error,
        metadata=_metadata(record, record.attempts - 1),
        started_at=record.at - record.duration_ms / 1000,
        completed_at=record.at,
    )


def skipped(reason: str) -> NodeResult:
    """Return the result of a node that was passed by."""
    return NodeResult("skipped", metadata={"skip_reason": reason})


def _metadata(record: NodeSucceeded | NodeFailed, attempt: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if record.iteration != ROOT:
        metadata["iteration"] = record.iteration
    if attempt:
        metadata["attempt"] = attempt
    if record.usage.llm_calls:
        metadata["token_usage"] = record.usage.to_wire()
    return metadata

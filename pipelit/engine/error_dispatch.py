"""What an execution that handles another one's failure is told. engine.md §17.2–17.3."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

HANDLER_TRIGGERS = ("trigger_error", "trigger_workflow", "trigger_manual")
"""The triggers of an error handler workflow, the first kind it has counts."""

_COPIED = ("chat_id", "credential_id", "user_id")


class RunFailure(msgspec.Struct, frozen=True, kw_only=True):
    """How a run failed. `node_id` None: no node did it. `timestamp`: as it is shown."""

    execution_id: str
    workflow_slug: str
    message: str
    error_code: str | None
    node_id: str | None
    node_type: str | None
    timestamp: str


class Trigger(Protocol):
    """A trigger node as a dispatch sees it."""

    @property
    def id(self) -> int:
        """Its row."""

    @property
    def component_type(self) -> str:
        """What fires it."""

    @property
    def config(self) -> Any:
        """Its config object."""


_T = TypeVar("_T", bound=Trigger)


def error_payload(failure: RunFailure, trigger: dict[str, Any]) -> dict[str, Any]:
    """Return the payload; the chat of the failed run's *trigger* is that of the new one."""
    error = {
        "message": failure.message,
        "error_code": failure.error_code,
        "source_node_id": failure.node_id,
        "source_node_type": failure.node_type,
        "execution_id": failure.execution_id,
        "workflow_slug": failure.workflow_slug,
        "timestamp": failure.timestamp,
        "stack_trace": "",
    }
    return {"error": error, **{name: trigger[name] for name in _COPIED if trigger.get(name)}}


def error_trigger(payload: dict[str, Any]) -> dict[str, Any]:
    """Normalise a payload (engine.md §5.4)."""
    error = payload["error"]
    place = f" in node {error['source_node_id']}" if error["source_node_id"] else ""
    return {
        **payload,
        "text": f"Error{place}: {error['message']}",
        "source": "error",
        "payload": payload,
    }


def first_trigger(triggers: Iterable[_T], types: Sequence[str]) -> _T | None:
    """Return the active trigger of the first type that has one: highest priority, lowest id."""
    active = [node for node in triggers if node.config.get("is_active", True)]
    for wanted in types:
        found = [node for node in active if node.component_type == wanted]
        if found:
            return min(found, key=lambda node: (-node.config.get("priority", 0), node.id))
    return None

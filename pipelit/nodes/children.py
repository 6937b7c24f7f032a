"""Child executions, as components and tools ask for them. Contract: engine.md §15."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipelit.engine.values import to_number

SELF = "self"
"""The slug by which a spawn names the workflow it is part of."""


class ChildCall(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that is to run as a child.

    Args:
        target: its slug; `target_id` counts where that is empty.
        payload: what its trigger receives.
        explicit: only a `trigger_workflow` that accepts the caller may fire.
        task_id: the task that the child works on.
    """

    target: str
    target_id: int | None = None
    payload: dict[str, Any]
    explicit: bool = False
    task_id: str | None = None


class ChildBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Children that run together. Asked for again by the same key, they are the same children.

    Args:
        key: an idempotency key (engine.md §10.5).
        timeout: seconds each may take; None: no limit of its own.
        spawned: by an agent, which may go less deep and name its own workflow `self`.
    """

    key: str
    calls: tuple[ChildCall, ...]
    timeout: float | None = None
    spawned: bool = False


class ChildEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended. `error` None: it completed."""

    execution_id: str
    final_output: Any = None
    error: str | None = None


def child_timeout(extra: Mapping[str, Any]) -> float | None:
    """Return the `timeout_seconds` of a node that runs children, if it sets one."""
    seconds = to_number(extra.get("timeout_seconds"))
    return float(seconds) if seconds is not None and seconds > 0 else None

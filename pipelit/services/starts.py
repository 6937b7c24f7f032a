"""What chat and manual runs share: choosing the trigger, idempotency, the row to store.

Contract: engine.md §5.2, §5.5, README.md §3 "Idempotency-Key", §9.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.errors import Conflict, NotFound
from pipelit.services.canvas import WORKFLOW_NOT_FOUND
from pipelit.services.principal import Principal
from pipelit.services.visibility import can_run_workflow
from pipelit.store.queries import executions as queries
from pipelit.store.queries.nodes import NodeRow, list_nodes
from pipelit.store.queries.workflows import WorkflowRow, find_workflow

ENQUEUE_FAILED = "Failed to enqueue workflow execution."
KEY_REUSED = "Idempotency-Key was already used with a different request."
INACTIVE = "Workflow is inactive."


class Started(msgspec.Struct, frozen=True):
    """The answer to a start. `replayed`: it was given before, and nothing was started."""

    body: dict[str, Any]
    status: int = 200
    replayed: bool = False


class RepeatableRequest(msgspec.Struct, frozen=True):
    """A request with an Idempotency-Key: which endpoint, and the body as parsed JSON."""

    key: str
    endpoint: str
    body: Any

    @property
    def fingerprint(self) -> str:
        """The same for the same request, whatever the order of its keys."""
        said = msgspec.json.encode([self.endpoint, self.body], order="sorted")
        return hashlib.sha256(said).hexdigest()


class Target(msgspec.Struct, frozen=True):
    """A workflow that may be started, its triggers of one type, and an earlier answer, if any."""

    workflow: WorkflowRow
    triggers: tuple[NodeRow, ...]
    replay: Started | None


def find_target(
    conn: Connection,
    principal: Principal,
    slug: str,
    trigger_type: str,
    request: RepeatableRequest | None,
) -> Target:
    """Read what a start needs.

    Raises:
        NotFound: no such workflow, or not visible.
        Conflict: the Idempotency-Key belongs to another request.
    """
    workflow = find_workflow(conn, slug)
    if workflow is None or not can_run_workflow(principal, workflow.owner_id, workflow.is_public):
        raise NotFound(WORKFLOW_NOT_FOUND)
    replay = None
    if request is not None:
        stored = queries.find_key(conn, principal.user_id, workflow.id, request.key)
        if stored is not None:
            if stored.fingerprint != request.fingerprint:
                raise Conflict(KEY_REUSED)
            replay = Started(stored.body, stored.status, replayed=True)
    triggers = tuple(n for n in list_nodes(conn, workflow.id) if n.component_type == trigger_type)
    return Target(workflow, triggers, replay)


def choose_trigger(triggers: Sequence[NodeRow], node_id: str | None) -> NodeRow | None:
    """Return the named trigger, or the active one with the highest priority, then lowest id."""
    active = [node for node in triggers if node.config.get("is_active", True)]
    if node_id is not None:
        return next((node for node in active if node.node_id == node_id), None)
    ranked = sorted(active, key=lambda node: (-node.config.get("priority", 0), node.id))
    return ranked[0] if ranked else None


def idempotency(
    request: RepeatableRequest | None, body: dict[str, Any]
) -> queries.Idempotency | None:
    """Return what to store so that a repetition of *request* is answered with *body*."""
    if request is None:
        return None
    return queries.Idempotency(
        key=request.key, fingerprint=request.fingerprint, status=200, body=body
    )

"""Failed executions whose failure others are to handle. Contract: engine.md §17.2."""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, exists, or_, select

from pipelit.store.queries import dispatches
from pipelit.store.schema import (
    execution_events,
    execution_logs,
    executions,
    nodes,
    workflows,
)


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that failed. `node_id`: whose failure it was, if a node's."""

    workflow_id: int
    workflow_slug: str
    workflow_owner_id: int
    error_handler_workflow_id: int | None
    user_id: int | None
    user_context: Any
    trigger: dict[str, Any]
    snapshot: Any
    message: str
    error_code: str | None
    node_id: str | None
    completed_at: datetime


def note(conn: Connection, execution_id: str, *, due_at: datetime) -> None:
    """Note a failure in the transaction that ends the run, if somebody may want to handle it.

    What itself handles a failure starts nothing, nor do its children: else failures would go on
    for ever.
    """
    roots = executions.alias()
    has_trigger = exists().where(
        nodes.c.workflow_id == workflows.c.id, nodes.c.component_type == "trigger_error"
    )
    handled = (
        select(executions.c.id)
        .join(workflows, workflows.c.id == executions.c.workflow_id)
        .where(
            executions.c.id == execution_id,
            executions.c.source != "error",
            ~exists().where(
                roots.c.id == executions.c.root_execution_id, roots.c.source == "error"
            ),
            or_(workflows.c.error_handler_workflow_id.is_not(None), has_trigger),
        )
    )
    if conn.scalar(handled) is not None:
        dispatches.add(conn, execution_id, (dispatches.ERROR,), due_at=due_at)


def find(conn: Connection, execution_id: str) -> Failed | None:
    """Return a failed execution with what there is to say about it."""
    row = (
        conn.execute(
            select(
                executions.c.workflow_id,
                workflows.c.slug.label("workflow_slug"),
                workflows.c.owner_id.label("workflow_owner_id"),
                workflows.c.error_handler_workflow_id,
                executions.c.user_id,
                executions.c.user_context,
                executions.c.trigger,
                executions.c.snapshot,
                executions.c.error_message,
                executions.c.error_code,
                executions.c.completed_at,
            )
            .join(workflows, workflows.c.id == executions.c.workflow_id)
            .where(executions.c.id == execution_id, executions.c.status == "failed")
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return None
    values = dict(row)
    message = values.pop("error_message")
    node_id = _failed_node(conn, execution_id)
    if node_id is not None:
        message = _last_error(conn, execution_id, node_id) or message
    return Failed(**values, node_id=node_id, message=message)


def _failed_node(conn: Connection, execution_id: str) -> str | None:
    said = conn.scalar(
        select(execution_events.c.data)
        .where(execution_events.c.execution_id == execution_id)
        .order_by(execution_events.c.seq.desc())
        .limit(1)
    )
    return None if said is None else said.get("node_id")


def _last_error(conn: Connection, execution_id: str, node_id: str) -> str | None:
    logs = execution_logs
    error: str | None = conn.scalar(
        select(logs.c.error)
        .where(
            logs.c.execution_id == execution_id,
            logs.c.node_id == node_id,
            logs.c.status == "failed",
        )
        .order_by(logs.c.id.desc())
        .limit(1)
    )
    return error

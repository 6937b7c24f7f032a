"""Workflows, nodes and edges as clients see them, by REST and in events.

An edge is shown as the engine defines it: `pipelit.engine.definition.EdgeDef`.

Contract: workflows.md, nodes.md, edges.md.
"""

from datetime import datetime
from typing import Any

import msgspec

from pipelit.engine.definition import EdgeDef
from pipelit.store.queries.nodes import NodeRow
from pipelit.store.queries.workflows import WorkflowRow


class NodeJob(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduled job of a `trigger_schedule` node. Contract: nodes.md "ScheduleJob"."""

    id: str
    status: str
    run_count: int
    error_count: int
    current_repeat: int
    current_retry: int
    total_repeats: int
    max_retries: int
    timeout_seconds: int
    interval_seconds: int | None
    cron: str | None
    timezone: str | None
    catch_up: str
    last_run_at: datetime | None
    next_run_at: datetime | None
    last_error: str
    created_at: datetime


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node as clients see it."""

    id: int
    node_id: str
    label: str | None
    component_type: str
    is_entry_point: bool
    interrupt_before: bool
    interrupt_after: bool
    position_x: int
    position_y: int
    config: dict[str, Any]
    subworkflow_id: int | None
    code_block_id: int | None
    updated_at: datetime
    schedule_job: NodeJob | None = None


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as clients see it; `max_execution_seconds` is the limit in force."""

    id: int
    name: str
    slug: str
    description: str
    is_active: bool
    is_public: bool
    is_default: bool
    tags: list[str] | None
    error_handler_workflow_id: int | None
    max_execution_seconds: int
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    node_count: int
    edge_count: int
    trigger_count: int
    created_at: datetime
    updated_at: datetime


class WorkflowDetail(Workflow, frozen=True, kw_only=True):
    """A workflow with everything in it, both lists in row order."""

    nodes: list[Node]
    edges: list[EdgeDef]


def show_node(row: NodeRow) -> Node:
    """Return the node as clients see it."""
    return msgspec.convert(row, Node, from_attributes=True)


def show_workflow(row: WorkflowRow, *, default_limit: int) -> Workflow:
    """Return the workflow as clients see it; *default_limit* is the global one in seconds."""
    values = {name: getattr(row, name) for name in Workflow.__struct_fields__}
    if row.max_execution_seconds is None:
        values["max_execution_seconds"] = default_limit
    return Workflow(**values)

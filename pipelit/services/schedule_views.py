"""Scheduled jobs as clients see them, alone and as part of their node.

Contract: schedules.md "ScheduledJob object", nodes.md "ScheduleJob".
"""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.services.canvas_views import Node, NodeJob, show_node
from pipelit.store.queries.nodes import NodeRow
from pipelit.store.queries.schedules import ScheduleRow, jobs_of_nodes

_USER = "user_profile_id"  # the one field with another name than its column


class ScheduledJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as clients see it."""

    id: str
    name: str
    description: str
    workflow_id: int
    trigger_node_id: str | None
    user_profile_id: int | None
    interval_seconds: int | None
    cron: str | None
    timezone: str | None
    catch_up: str
    total_repeats: int
    max_retries: int
    timeout_seconds: int
    trigger_payload: dict[str, Any] | None
    status: str
    current_repeat: int
    current_retry: int
    last_run_at: datetime | None
    next_run_at: datetime | None
    run_count: int
    error_count: int
    last_error: str
    created_at: datetime
    updated_at: datetime


class NominalTime(msgspec.Struct, frozen=True, kw_only=True):
    """A time at which a job is to run; `local_time` carries the offset of the job's zone."""

    nominal_time: datetime
    local_time: str


def show_job(row: ScheduleRow) -> ScheduledJob:
    """Return the job as clients see it."""
    values = {name: getattr(row, name) for name in ScheduledJob.__struct_fields__ if name != _USER}
    return ScheduledJob(**values, user_profile_id=row.user_id)


def show_nodes(conn: Connection, workflow_id: int, rows: list[NodeRow]) -> list[Node]:
    """Return nodes of a workflow as clients see them, with their own jobs."""
    if not any(row.component_type == "trigger_schedule" for row in rows):
        return [show_node(row) for row in rows]
    jobs = jobs_of_nodes(conn, workflow_id)
    return [_with_job(row, jobs.get(row.node_id)) for row in rows]


def show_node_with_job(conn: Connection, workflow_id: int, row: NodeRow) -> Node:
    """Return one node of a workflow as clients see it, with its own job."""
    if row.component_type != "trigger_schedule":
        return show_node(row)
    return _with_job(row, jobs_of_nodes(conn, workflow_id, row.node_id).get(row.node_id))


def _with_job(row: NodeRow, job: ScheduleRow | None) -> Node:
    node = show_node(row)
    if job is None or row.component_type != "trigger_schedule":
        return node
    shown = msgspec.convert(job, NodeJob, from_attributes=True)
    return msgspec.structs.replace(node, schedule_job=shown)

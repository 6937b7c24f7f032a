"""Epics and tasks as clients see them, by REST and in events. Contract: epics.md, tasks.md.

Used by the services of both sections and by whoever tells of the ends of executions.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

import msgspec

from pipelit.actors.turns import News, event_data
from pipelit.engine.outcome import micros_to_usd
from pipelit.engine.tasks import EpicStatus, TaskStatus
from pipelit.store.queries.epics import EpicRow
from pipelit.store.queries.tasks import TaskRow


class Epic(msgspec.Struct, frozen=True, kw_only=True):
    """An epic as everybody sees it."""

    id: str
    title: str
    description: str
    tags: list[str]
    created_by_node_id: str | None
    workflow_id: int | None
    user_profile_id: int | None
    status: EpicStatus
    priority: int
    budget_tokens: int | None
    budget_usd: float | None
    spent_tokens: int
    spent_usd: float
    agent_overhead_tokens: int
    agent_overhead_usd: float
    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    result_summary: str | None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as everybody sees it."""

    id: str
    epic_id: str
    title: str
    description: str
    tags: list[str]
    created_by_node_id: str | None
    status: TaskStatus
    priority: int
    workflow_id: int | None
    workflow_slug: str | None
    execution_id: str | None
    workflow_source: str
    depends_on: list[str]
    requirements: dict[str, Any] | None
    estimated_tokens: int | None
    actual_tokens: int
    actual_usd: float
    llm_calls: int
    tool_invocations: int
    duration_ms: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    result_summary: str | None
    error_message: str | None
    retry_count: int
    max_retries: int
    notes: list[Any]


def channel(epic_id: str) -> str:
    """Return the channel of an epic, which is also the subject whose changes take turns."""
    return f"epic:{epic_id}"


def tell_tasks(tasks: Collection[TaskRow]) -> Iterator[News]:
    """Announce changed tasks."""
    for row in tasks:
        yield News(channel(row.epic_id), "task_updated", event_data(show_task(row)))


def show_epic(row: EpicRow) -> Epic:
    """Return the epic as clients see it."""
    values = {name: getattr(row, name) for name in row.__struct_fields__}
    budget = values.pop("budget_micros")
    return Epic(
        user_profile_id=values.pop("user_id"),
        budget_usd=None if budget is None else micros_to_usd(budget),
        spent_usd=micros_to_usd(values.pop("spent_micros")),
        agent_overhead_usd=micros_to_usd(values.pop("agent_overhead_micros")),
        **values,
    )


def show_task(row: TaskRow) -> Task:
    """Return the task as clients see it."""
    values = {name: getattr(row, name) for name in row.__struct_fields__}
    return Task(actual_usd=micros_to_usd(values.pop("actual_micros")), **values)

"""What a change of a task does to its epic and its neighbours, inside the same transaction.

Also epics and tasks as clients see them, by REST and in events. Used by the services of both
sections and by whoever ends an execution that is linked to a task.

Contract: epics.md, tasks.md, engine.md §25.5.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.actors.turns import News, event_data
from pipelit.engine import tasks as rules
from pipelit.engine.outcome import micros_to_usd
from pipelit.engine.tasks import EpicStatus, TaskState, TaskStatus
from pipelit.store.queries import epics as epic_queries
from pipelit.store.queries import tasks as queries
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


def load_states(conn: Connection, epic_id: str) -> Sequence[TaskState]:
    """Return what the rules need to know of an epic's tasks, oldest first."""
    return [TaskState(**row) for row in queries.list_states(conn, epic_id)]


def recount(conn: Connection, epic_id: str) -> None:
    """Bring the counters and sums of an epic to what its tasks say."""
    counted = rules.tally(load_states(conn, epic_id))
    epic_queries.update_epic(conn, epic_id, msgspec.structs.asdict(counted))


def unblock_after(conn: Connection, task: TaskRow, *, now: datetime) -> Sequence[str]:
    """Let those go on who waited for *task*, which has just become completed; return their ids."""
    unblocked = rules.unblocked_by(task.id, load_states(conn, task.epic_id))
    _make_pending(conn, unblocked, now=now)
    return unblocked


def delete_from_epic(
    conn: Connection, epic_id: str, gone: Collection[str], *, now: datetime
) -> Sequence[str]:
    """Delete tasks of one epic; return the ids of those that nothing holds back any more."""
    left = rules.forget(gone, load_states(conn, epic_id))
    queries.delete_tasks(conn, gone)
    for task_id, depends_on in left.depends_on.items():
        queries.update_tasks(conn, [task_id], {"depends_on": depends_on})
    _make_pending(conn, left.unblocked, now=now)
    recount(conn, epic_id)
    return left.unblocked


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


def _make_pending(conn: Connection, ids: Sequence[str], *, now: datetime) -> None:
    if ids:
        queries.update_tasks(conn, ids, {"status": "pending", "updated_at": now})

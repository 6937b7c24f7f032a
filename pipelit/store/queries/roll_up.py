"""What an ended execution means for the tasks that are linked to it, and for their epics.

It is carried over in the transaction that ends the execution, so nobody sees an end with old sums.
Contract: engine.md §7.4, §25.5.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, and_, bindparam, exists, func, or_, select

from pipelit.engine.output import delivery_text
from pipelit.store.database import diagnose
from pipelit.store.queries import dispatches, epic_books, epics
from pipelit.store.queries import tasks as task_queries
from pipelit.store.schema import executions, tasks

MAX_TEXT = 500


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How an execution ended."""

    status: str
    final_output: Any
    error_message: str
    started_at: datetime | None
    completed_at: datetime


class Settled(msgspec.Struct, frozen=True):
    """A task that has its outcome. `unblocked`: those it let go on."""

    task_id: str
    epic_id: str
    unblocked: Sequence[str] = ()


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's executions took together. Micro-dollars."""

    actual_tokens: int
    actual_micros: int
    llm_calls: int
    tool_invocations: int


_linked = select(tasks.c.id).where(tasks.c.execution_id == bindparam("of")).limit(1)


def carry_over(conn: Connection, execution_id: str, *, now: datetime) -> None:
    """Settle the tasks of an execution in the transaction that ends it, if it has any.

    What remains to be done is noted: to tell of it, or all of it, if it failed.
    """
    if not conn.execute(_linked, {"of": execution_id}).first():
        return
    remaining = dispatches.ROLLED_UP
    try:
        with conn.begin_nested():
            settle(conn, execution_id, now=now)
    except Exception as error:  # never changes how the execution ends: repeated on its own
        if diagnose(error):
            raise
        remaining = dispatches.ROLL_UP
    dispatches.add(conn, execution_id, (remaining,), due_at=now)


def settle(conn: Connection, execution_id: str, *, now: datetime) -> list[Settled]:
    """Give the tasks of an ended execution their outcome, and their epics the new sums."""
    ended = find_ended(conn, execution_id)
    if ended is None:
        return []
    linked = linked_tasks(conn, execution_id)
    for epic_id in sorted({epic_id for _, epic_id in linked}):
        epic_books.lock(conn, epic_id)
    costs = sum_costs(conn, execution_id)
    values = {**_outcome(ended), **msgspec.structs.asdict(costs), "updated_at": now}
    return [_settle(conn, task_id, values) for task_id, _ in linked]


def _settle(conn: Connection, task_id: str, values: dict[str, Any]) -> Settled:
    now = values["updated_at"]
    (before,) = task_queries.find_tasks(conn, [task_id])
    task_queries.update_tasks(conn, [task_id], values)
    unblocked: Sequence[str] = ()
    if values["status"] == "completed" and before.status != "completed":
        unblocked = epic_books.unblock_after(conn, before, now=now)
    epic_books.recount(conn, before.epic_id)
    epics.update_epic(conn, before.epic_id, {"updated_at": now})
    return Settled(task_id, before.epic_id, unblocked)


def find_settled(conn: Connection, execution_id: str) -> list[Settled]:
    """Return what `settle` has done for an execution when it ended."""
    settled = []
    for task_id, epic_id in linked_tasks(conn, execution_id):
        (task,) = task_queries.find_tasks(conn, [task_id])
        states = epic_books.load_states(conn, epic_id)
        waited = [state.id for state in states if task_id in state.depends_on]
        unblocked = [
            other.id
            for other in task_queries.find_tasks(conn, waited)
            # Changed together with the task; who has changed it since has told of it.
            if other.status == "pending" and other.updated_at == task.completed_at
        ]
        settled.append(Settled(task_id, epic_id, unblocked))
    return settled


def _outcome(ended: Ended) -> dict[str, Any]:
    """Return what the end of an execution sets in its tasks."""
    started_at = ended.started_at or ended.completed_at
    values: dict[str, Any] = {
        "status": ended.status,
        "completed_at": ended.completed_at,
        "duration_ms": (ended.completed_at - started_at) // timedelta(milliseconds=1),
    }
    if ended.status == "completed":
        values["result_summary"] = delivery_text(ended.final_output)[:MAX_TEXT]
    elif ended.status == "failed":
        values["error_message"] = ended.error_message[:MAX_TEXT]
    return values


def find_ended(conn: Connection, execution_id: str) -> Ended | None:
    """Return how an execution ended; None if it is not there or has not."""
    columns = (executions.c[name] for name in Ended.__struct_fields__)
    statement = select(*columns).where(
        executions.c.id == execution_id, executions.c.completed_at.is_not(None)
    )
    row = conn.execute(statement).mappings().first()
    return None if row is None else Ended(**row)


def linked_tasks(conn: Connection, execution_id: str) -> list[tuple[str, str]]:
    """Return task and epic of each link to an execution, oldest first."""
    statement = select(tasks.c.id, tasks.c.epic_id).where(tasks.c.execution_id == execution_id)
    rows = conn.execute(statement.order_by(tasks.c.created_at, tasks.c.id))
    return [(row.id, row.epic_id) for row in rows]


def sum_costs(conn: Connection, execution_id: str) -> Costs:
    """Add up an execution, the ones it retries, and their descendants without a task of their own.

    What a descendant with a task started belongs to that task.
    """
    family = (
        select(executions.c.id, executions.c.retry_of)
        .where(executions.c.id == execution_id)
        .cte("family", recursive=True)
    )
    has_task = exists().where(tasks.c.execution_id == executions.c.id)
    joins = or_(
        and_(executions.c.parent_execution_id == family.c.id, ~has_task),
        executions.c.id == family.c.retry_of,
    )
    family = family.union(
        select(executions.c.id, executions.c.retry_of).join_from(executions, family, joins)
    )
    totals = (
        executions.c.total_tokens,
        executions.c.cost_micros,
        executions.c.llm_calls,
        executions.c.tool_invocations,
    )
    members = executions.c.id.in_(select(family.c.id))
    row = conn.execute(select(*(func.coalesce(func.sum(one), 0) for one in totals)).where(members))
    tokens, micros, llm_calls, tool_invocations = (cast("int", one) for one in row.one())
    return Costs(
        actual_tokens=int(tokens),
        actual_micros=int(micros),
        llm_calls=int(llm_calls),
        tool_invocations=int(tool_invocations),
    )

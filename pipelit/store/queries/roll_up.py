"""What an ended execution means for the tasks that are linked to it. Contract: engine.md §25.5."""

from datetime import datetime
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, and_, exists, func, or_, select

from pipelit.store.schema import executions, tasks


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How an execution ended."""

    status: str
    final_output: Any
    error_message: str
    started_at: datetime | None
    completed_at: datetime


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's executions took together. Micro-dollars."""

    actual_tokens: int
    actual_micros: int
    llm_calls: int
    tool_invocations: int


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

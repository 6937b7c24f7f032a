"""Which executions are still needed by one that goes on.

Below one that has not ended, all that its descendants used still counts for the budget of its
epic; so does what it retries. Contract: engine.md §25.4, §25.5, operations.md §6.
"""

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, or_, select, union_all

from pipelit.store.queries.dispatches import ROLL_UP
from pipelit.store.schema import dispatches, executions

_going_on = union_all(
    # Said so, and not by what they are not, the index of statuses finds them.
    select(executions.c.id).where(executions.c.status.in_(("pending", "running", "interrupted"))),
    select(dispatches.c.execution_id).where(
        dispatches.c.kind == ROLL_UP, dispatches.c.due_at.is_not(None)
    ),
)
_needed = (
    select(executions.c.id, executions.c.retry_of)
    .where(executions.c.id.in_(_going_on))
    .cte("needed", recursive=True)
)
_needed = _needed.union(
    select(executions.c.id, executions.c.retry_of).join_from(
        executions,
        _needed,
        or_(
            executions.c.parent_execution_id == _needed.c.id,
            executions.c.id == _needed.c.retry_of,
        ),
    )
)

IDS = select(_needed.c.id)
"""Executions that go on, or whose costs nobody has yet; all below them, and what they retry."""

_among = IDS.where(_needed.c.id.in_(bindparam("ids", expanding=True)))


def find_needed(conn: Connection, execution_ids: Collection[str]) -> set[str]:
    """Return those of *execution_ids* that are needed."""
    return set(conn.scalars(_among, {"ids": list(execution_ids)}))

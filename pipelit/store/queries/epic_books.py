"""What a change of a task does to its epic and its neighbours, inside the same transaction.

Whoever changes tasks of an epic locks it first: its counters are those of its tasks, also when
several servers change them. Contract: epics.md "Counters", tasks.md, engine.md §25.5.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, select

from pipelit.engine import tasks as rules
from pipelit.engine.tasks import TaskState
from pipelit.store.queries import epics, tasks
from pipelit.store.queries.tasks import TaskRow
from pipelit.store.schema import epics as table

# As an update locks a row: who only refers to the epic does not wait. SQLite has one writer.
_lock = select(table.c.id).where(table.c.id == bindparam("epic")).with_for_update(key_share=True)


def lock(conn: Connection, epic_id: str) -> None:
    """Let nobody else change the epic or its tasks before the transaction ends."""
    conn.execute(_lock, {"epic": epic_id})


def load_states(conn: Connection, epic_id: str) -> Sequence[TaskState]:
    """Return what the rules need to know of an epic's tasks, oldest first."""
    return [TaskState(**row) for row in tasks.list_states(conn, epic_id)]


def recount(conn: Connection, epic_id: str) -> None:
    """Bring the counters and sums of an epic to what its tasks say."""
    lock(conn, epic_id)
    counted = tasks.tally(conn, epic_id)
    epics.update_epic(conn, epic_id, msgspec.structs.asdict(counted))


def unblock_after(conn: Connection, task: TaskRow, *, now: datetime) -> Sequence[str]:
    """Let those go on who waited for *task*, which has just become completed; return their ids."""
    unblocked = rules.unblocked_by(task.id, load_states(conn, task.epic_id))
    _make_pending(conn, unblocked, now=now)
    return unblocked


def delete_from_epic(
    conn: Connection, epic_id: str, gone: Collection[str], *, now: datetime
) -> Sequence[str]:
    """Delete tasks of one epic; return the ids of those that nothing holds back any more."""
    lock(conn, epic_id)
    left = rules.forget(gone, load_states(conn, epic_id))
    tasks.delete_tasks(conn, gone)
    for task_id, depends_on in left.depends_on.items():
        tasks.update_tasks(conn, [task_id], {"depends_on": depends_on})
    _make_pending(conn, left.unblocked, now=now)
    recount(conn, epic_id)
    return left.unblocked


def _make_pending(conn: Connection, ids: Sequence[str], *, now: datetime) -> None:
    if ids:
        tasks.update_tasks(conn, ids, {"status": "pending", "updated_at": now})

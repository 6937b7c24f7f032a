"""Child executions: stored with their parent's step, told to their root, counted for it.

Contract: engine.md §9.2, §9.4, §15.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from pipelit.errors import PipelitError
from pipelit.store.queries import dispatches, executions, journal
from pipelit.store.queries.executions import TERMINAL, NewExecution, StoredEvent
from pipelit.store.queries.tasks import link_task
from pipelit.store.schema import execution_events, workflows
from pipelit.store.schema import executions as table

MAX_DEPTH = 10
"""No execution is deeper below its root (engine.md §15.7)."""
MAX_LIVE_DESCENDANTS = 1000
"""A root has no more that have not ended (engine.md §15.9): they take no slots."""


class TooManyDescendants(PipelitError):
    """A root has as many descendants as it may: no child of the step is stored, nor the step."""


class Kin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a child stands: who started it, and the root that all of its events reach.

    `root_node_id`: the node of the root that the child descends from. The rest is the root's.
    """

    parent_execution_id: str
    depth: int
    root_execution_id: str
    root_node_id: str
    root_workflow_id: int
    root_workflow_slug: str
    root_owner_id: int
    root_user_id: int | None
    root_last_seq: int


class NewChild(msgspec.Struct, frozen=True, kw_only=True):
    """A child to store. `task_id`: the task it works on."""

    execution: NewExecution
    task_id: str | None = None


class ChildRow(msgspec.Struct, frozen=True, kw_only=True):
    """A child, as far as its parent is concerned."""

    id: str
    dedupe_key: str
    status: str
    final_output: Any
    error_message: str
    created_at: datetime
    completed_at: datetime | None


class FamilyTotals(msgspec.Struct, frozen=True, kw_only=True):
    """How many descendants an execution has, and what they used."""

    count: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_micros: int
    llm_calls: int
    tool_invocations: int


class FamilyStep(msgspec.Struct, frozen=True):
    """A step that was written, and the root's events that came of it."""

    written: journal.Written
    forwarded: tuple[StoredEvent, ...] = ()


_CHILD = tuple(table.c[name] for name in ChildRow.__struct_fields__)
_PLACE = (table.c.parent_execution_id, table.c.parent_node_id, table.c.depth)


def find_kin(conn: Connection, execution_id: str) -> Kin | None:
    """Return where an execution stands; None for a root, and if its root is deleted."""
    first = conn.execute(select(*_PLACE).where(table.c.id == execution_id)).one_or_none()
    if first is None or first.parent_execution_id is None:
        return None
    above = first
    for _ in range(MAX_DEPTH):
        wanted = table.c.id == above.parent_execution_id
        row = conn.execute(select(*_PLACE).where(wanted)).one_or_none()
        if row is None or row.parent_execution_id is None:
            break
        above = row
    root = conn.execute(
        select(table.c.id, table.c.workflow_id, table.c.user_id, table.c.last_seq)
        .add_columns(workflows.c.slug, workflows.c.owner_id)
        .join_from(table, workflows, workflows.c.id == table.c.workflow_id)
        .where(table.c.id == above.parent_execution_id)
    ).one_or_none()
    if root is None:
        return None
    return Kin(
        parent_execution_id=first.parent_execution_id,
        depth=first.depth,
        root_execution_id=root.id,
        root_node_id=above.parent_node_id,
        root_workflow_id=root.workflow_id,
        root_workflow_slug=root.slug,
        root_owner_id=root.owner_id,
        root_user_id=root.user_id,
        root_last_seq=root.last_seq,
    )


def write_family_step(
    conn: Connection,
    step: journal.Step,
    *,
    kin: Kin | None,
    children: Collection[NewChild] = (),
) -> FamilyStep:
    """Write a step with the children it starts, and tell the root of the writer's nodes.

    Raises:
        Fenced: the step's writer does not own the execution, or it has ended.
        TooManyDescendants: the family would be too large.
    """
    if children:
        root_id = step.execution_id if kin is None else kin.root_execution_id
        if count_live_descendants(conn, root_id) + len(children) > MAX_LIVE_DESCENDANTS:
            raise TooManyDescendants
    written = journal.write_step(conn, step)
    for child in children:
        new = child.execution
        executions.create(conn, new)
        if child.task_id is not None and link_task(
            conn, child.task_id, new.id, new.workflow_id, now=step.now
        ):
            dispatches.add(conn, new.id, (dispatches.LINK,), due_at=step.now)
    if kin is None:
        return FamilyStep(written)
    return FamilyStep(written, _forward(conn, step.execution_id, kin, written.events))


def _forward(
    conn: Connection, execution_id: str, kin: Kin, events: Collection[StoredEvent]
) -> tuple[StoredEvent, ...]:
    """Add a child's node events to its root's, unless the root has ended."""
    told = [event for event in events if event.type == "node_status"]
    if not told:
        return ()
    last_seq = conn.scalar(
        update(table)
        .where(table.c.id == kin.root_execution_id, table.c.status.not_in(TERMINAL))
        .values(last_seq=table.c.last_seq + len(told))
        .returning(table.c.last_seq)
    )
    if last_seq is None:
        return ()
    more = {
        "execution_id": kin.root_execution_id,
        "child_execution_id": execution_id,
        "parent_node_id": kin.root_node_id,
        "is_child_event": True,
    }
    first = last_seq - len(told) + 1
    forwarded = tuple(
        StoredEvent(first + n, "child_node_status", event.timestamp, {**event.data, **more})
        for n, event in enumerate(told)
    )
    root = {"execution_id": kin.root_execution_id}
    rows = [msgspec.structs.asdict(event) | root for event in forwarded]
    conn.execute(insert(execution_events), rows)
    return forwarded


def find_children(conn: Connection, keys: Collection[str]) -> dict[str, ChildRow]:
    """Return {dedupe key: child} of those that exist."""
    rows = conn.execute(select(*_CHILD).where(table.c.dedupe_key.in_(keys))).mappings()
    return {row["dedupe_key"]: ChildRow(**row) for row in rows}


def find_child(conn: Connection, execution_id: str) -> ChildRow | None:
    """Return a child by its id, if it exists."""
    row = conn.execute(select(*_CHILD).where(table.c.id == execution_id)).mappings().first()
    return None if row is None else ChildRow(**row)


def has_children(conn: Connection, execution_id: str) -> bool:
    """Tell whether an execution has started any."""
    found = select(table.c.id).where(table.c.parent_execution_id == execution_id).limit(1)
    return conn.scalar(found) is not None


def live_children(conn: Connection, execution_id: str) -> dict[str, str]:
    """Return {id: dedupe key} of the children of an execution that have not ended."""
    statement = select(table.c.id, table.c.dedupe_key).where(
        table.c.parent_execution_id == execution_id, table.c.status.not_in(TERMINAL)
    )
    return {row.id: row.dedupe_key or "" for row in conn.execute(statement)}


def count_live_descendants(conn: Connection, execution_id: str) -> int:
    """Count the descendants of an execution that have not ended.

    Only those are walked through: whoever has a child that runs, runs.
    """
    is_live = table.c.status.not_in(TERMINAL)
    family = (
        select(table.c.id)
        .where(table.c.parent_execution_id == execution_id, is_live)
        .cte("live", recursive=True)
    )
    family = family.union(
        select(table.c.id)
        .join_from(table, family, table.c.parent_execution_id == family.c.id)
        .where(is_live)
    )
    return int(conn.scalar(select(func.count()).select_from(family)) or 0)


def parents_of(conn: Connection, execution_ids: Collection[str]) -> Mapping[str, str]:
    """Return {id: parent} of those of the named executions that are children."""
    statement = select(table.c.id, table.c.parent_execution_id).where(
        table.c.id.in_(execution_ids), table.c.parent_execution_id.is_not(None)
    )
    return {row.id: row.parent_execution_id for row in conn.execute(statement)}


def sum_descendants(conn: Connection, execution_id: str) -> FamilyTotals:
    """Count the descendants of an execution and add up what they used."""
    family = (
        select(table.c.id)
        .where(table.c.parent_execution_id == execution_id)
        .cte("descendants", recursive=True)
    )
    family = family.union(
        select(table.c.id).join_from(table, family, table.c.parent_execution_id == family.c.id)
    )
    _, *summed = FamilyTotals.__struct_fields__
    totals = (func.coalesce(func.sum(table.c[name]), 0).label(name) for name in summed)
    wanted = table.c.id.in_(select(family.c.id))
    count = func.count().label("count")
    row = conn.execute(select(count, *totals).select_from(table).where(wanted)).mappings().one()
    return FamilyTotals(**{name: int(value) for name, value in row.items()})

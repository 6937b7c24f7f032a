"""Workflows. A deleted one keeps its row for its executions and frees its slug.

Contract: workflows.md.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipelit.store.schema import edges, epics, nodes, schedules, tasks, workflows


class SlugTaken(Exception):
    """Another living workflow has the slug."""


class WorkflowRow(msgspec.Struct, frozen=True, kw_only=True):
    """A living workflow with the counts of what it holds.

    `max_execution_seconds` is None where the global setting counts.
    """

    id: int
    owner_id: int
    name: str
    slug: str
    description: str
    is_active: bool
    is_public: bool
    is_default: bool
    tags: list[str] | None
    error_handler_workflow_id: int | None
    max_execution_seconds: int | None
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    version: int
    created_at: datetime
    updated_at: datetime
    node_count: int
    edge_count: int
    trigger_count: int


_COUNTED = {"node_count", "edge_count", "trigger_count"}
_COLUMNS = tuple(
    workflows.c[name] for name in WorkflowRow.__struct_fields__ if name not in _COUNTED
)
_ALIVE = workflows.c.deleted_at.is_(None)


def find_workflow(conn: Connection, slug: str) -> WorkflowRow | None:
    """Return the living workflow with this slug."""
    return _first(conn, workflows.c.slug == slug)


def find_workflow_by_id(conn: Connection, workflow_id: int) -> WorkflowRow | None:
    """Return the living workflow with this id."""
    return _first(conn, workflows.c.id == workflow_id)


def find_workflows(conn: Connection, slugs: Collection[str]) -> list[WorkflowRow]:
    """Return those of the named workflows that live, oldest first."""
    rows = conn.execute(_select(workflows.c.slug.in_(slugs)).order_by(workflows.c.id))
    return [WorkflowRow(**row) for row in rows.mappings()]


def find_workflow_of_call(conn: Connection, dedupe_key: str) -> WorkflowRow | None:
    """Return the living workflow that a tool call has made."""
    return _first(conn, workflows.c.dedupe_key == dedupe_key)


def list_slugs(conn: Connection, beginning: str) -> Sequence[str]:
    """Return the slugs of living workflows that begin with a text."""
    begins = workflows.c.slug.startswith(beginning, autoescape=True)
    return list(conn.scalars(select(workflows.c.slug).where(_ALIVE, begins)))


def list_workflows(
    conn: Connection, *, owners: Collection[int] | None, limit: int, offset: int
) -> tuple[Sequence[WorkflowRow], int]:
    """Return a page of the workflows of *owners* (None: everybody's) and how many there are."""
    wanted = [] if owners is None else [workflows.c.owner_id.in_(owners)]
    total = conn.scalar(select(func.count()).select_from(workflows).where(_ALIVE, *wanted)) or 0
    page = _select(*wanted).order_by(workflows.c.id).limit(limit).offset(offset)
    return [WorkflowRow(**row) for row in conn.execute(page).mappings()], total


def insert_workflow(conn: Connection, values: Mapping[str, Any]) -> int:
    """Store a workflow; return its id.

    Raises:
        SlugTaken: the unit has to end with it.
    """
    try:
        result = conn.execute(insert(workflows).values(**values).returning(workflows.c.id))
    except IntegrityError as error:
        raise SlugTaken from error
    return int(result.scalar_one())


def update_workflow(conn: Connection, workflow_id: int, values: Mapping[str, Any]) -> None:
    """Change columns of a workflow, which is a new version of it.

    Raises:
        SlugTaken: the unit has to end with it.
    """
    changed = update(workflows).where(workflows.c.id == workflow_id)
    try:
        conn.execute(changed.values(**values, version=workflows.c.version + 1))
    except IntegrityError as error:
        raise SlugTaken from error


def clear_default(conn: Connection, owner_id: int, *, but: int) -> None:
    """Take the default mark from the owner's workflows other than *but*."""
    others = (workflows.c.owner_id == owner_id, workflows.c.id != but, workflows.c.is_default)
    conn.execute(update(workflows).where(*others).values(is_default=False))


def touch_workflow(conn: Connection, workflow_id: int) -> None:
    """Count a change of the nodes or edges of a workflow: plans compiled before are stale."""
    changed = update(workflows).where(workflows.c.id == workflow_id)
    conn.execute(changed.values(version=workflows.c.version + 1))


def bury_workflow(conn: Connection, workflow_id: int, *, now: datetime) -> list[str]:
    """Mark a workflow deleted, drop its schedules and every reference to it.

    Returns the ids of the schedules.

    Contract: workflows.md "DELETE".
    """
    mine = schedules.c.workflow_id == workflow_id
    dropped = list(conn.scalars(delete(schedules).where(mine).returning(schedules.c.id)))
    calling = select(nodes.c.workflow_id).where(nodes.c.subworkflow_id == workflow_id)
    stale = update(workflows).where(workflows.c.id.in_(calling))
    conn.execute(stale.values(version=workflows.c.version + 1))
    for column in (
        workflows.c.error_handler_workflow_id,
        nodes.c.subworkflow_id,
        epics.c.workflow_id,
        tasks.c.workflow_id,
    ):
        conn.execute(update(column.table).where(column == workflow_id).values({column.name: None}))
    buried = update(workflows).where(workflows.c.id == workflow_id)
    conn.execute(buried.values(deleted_at=now, is_default=False))
    return dropped


def _first(conn: Connection, condition: ColumnElement[bool]) -> WorkflowRow | None:
    row = conn.execute(_select(condition)).mappings().first()
    return None if row is None else WorkflowRow(**row)


def _select(*conditions: ColumnElement[bool]) -> Select[Any]:
    own_nodes = nodes.c.workflow_id == workflows.c.id
    is_trigger = nodes.c.component_type.startswith("trigger_", autoescape=True)
    return select(
        *_COLUMNS,
        _count(own_nodes).label("node_count"),
        _count(edges.c.workflow_id == workflows.c.id).label("edge_count"),
        _count(own_nodes, is_trigger).label("trigger_count"),
    ).where(_ALIVE, *conditions)


def _count(*conditions: ColumnElement[bool]) -> Any:
    return select(func.count()).where(*conditions).correlate(workflows).scalar_subquery()

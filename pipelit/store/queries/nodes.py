"""The nodes of workflows.

A stored config is complete; the links to credentials are columns, so that they become null when
the credential goes, and the link to the model follows from the edges.

Contract: nodes.md.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipelit.engine.definition import NodeDef
from pipelit.store.schema import edges, nodes, schedules


class NodeIdTaken(Exception):
    """Another node of the workflow has the id."""


class NodeRow(NodeDef, frozen=True, kw_only=True):
    """A node as stored."""

    updated_at: datetime


_LINKS = ("llm_credential_id", "credential_id")
_COLUMNS = tuple(nodes.c[name] for name in (*NodeRow.__struct_fields__, *_LINKS))


def list_nodes(conn: Connection, workflow_id: int) -> list[NodeRow]:
    """Return the nodes of a workflow in row order."""
    models = _models(conn, workflow_id)
    rows = conn.execute(
        select(*_COLUMNS).where(nodes.c.workflow_id == workflow_id).order_by(nodes.c.id)
    )
    return [_node(row, models) for row in rows.mappings()]


def list_triggers(conn: Connection, workflow_id: int) -> list[NodeRow]:
    """Return the trigger nodes of a workflow in row order."""
    is_trigger = nodes.c.component_type.startswith("trigger_", autoescape=True)
    rows = conn.execute(
        select(*_COLUMNS).where(nodes.c.workflow_id == workflow_id, is_trigger).order_by(nodes.c.id)
    )
    return [_node(row, {}) for row in rows.mappings()]


def find_node(conn: Connection, workflow_id: int, node_id: str) -> NodeRow | None:
    """Return one node of a workflow."""
    wanted = (nodes.c.workflow_id == workflow_id, nodes.c.node_id == node_id)
    row = conn.execute(select(*_COLUMNS).where(*wanted)).mappings().first()
    return None if row is None else _node(row, _models(conn, workflow_id, node_id))


def count_nodes(conn: Connection, workflow_id: int) -> int:
    """Return how many nodes a workflow has."""
    counted = select(func.count()).select_from(nodes).where(nodes.c.workflow_id == workflow_id)
    return conn.scalar(counted) or 0


def node_types(conn: Connection, workflow_id: int, node_ids: Collection[str]) -> dict[str, str]:
    """Return the types of those of *node_ids* that exist: `{node_id: component_type}`."""
    wanted = (nodes.c.workflow_id == workflow_id, nodes.c.node_id.in_(node_ids))
    rows = conn.execute(select(nodes.c.node_id, nodes.c.component_type).where(*wanted))
    return {row.node_id: row.component_type for row in rows}


def insert_node(conn: Connection, workflow_id: int, values: Mapping[str, Any]) -> None:
    """Store a node. *values* are those of `NodeRow` without `id`.

    Raises:
        NodeIdTaken: the unit has to end with it.
    """
    try:
        conn.execute(insert(nodes).values(workflow_id=workflow_id, **_columns(values)))
    except IntegrityError as error:
        raise NodeIdTaken from error


def update_node(conn: Connection, row_id: int, values: Mapping[str, Any]) -> None:
    """Change a node. *values* are some of those of `NodeRow`; a config among them is complete.

    Raises:
        NodeIdTaken: the unit has to end with it.
    """
    try:
        conn.execute(update(nodes).where(nodes.c.id == row_id).values(**_columns(values)))
    except IntegrityError as error:
        raise NodeIdTaken from error


def delete_node(conn: Connection, row_id: int) -> None:
    """Remove a node. Its edges and schedules are removed by their own functions."""
    conn.execute(delete(nodes).where(nodes.c.id == row_id))


def delete_schedules(conn: Connection, workflow_id: int, node_id: str) -> list[str]:
    """Remove the schedules a node has; nothing fires any more. Returns their ids."""
    wanted = (schedules.c.workflow_id == workflow_id, schedules.c.trigger_node_id == node_id)
    return list(conn.scalars(delete(schedules).where(*wanted).returning(schedules.c.id)))


def rename_schedules(conn: Connection, workflow_id: int, old: str, new: str) -> None:
    """Let the schedules of a node follow its new id."""
    wanted = (schedules.c.workflow_id == workflow_id, schedules.c.trigger_node_id == old)
    conn.execute(update(schedules).where(*wanted).values(trigger_node_id=new))


def _node(row: Mapping[Any, Any], models: Mapping[str, int]) -> NodeRow:
    values = dict(row)
    links = {name: values.pop(name) for name in _LINKS}
    links["llm_model_config_id"] = models.get(values["node_id"])
    values["config"] = values["config"] | links
    return NodeRow(**values)


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    if "config" not in values:
        return dict(values)
    config = dict(values["config"])
    links = {name: config.get(name) for name in _LINKS}
    unlinked = config | dict.fromkeys((*_LINKS, "llm_model_config_id"))
    return {**values, "config": unlinked, **links}


def _models(conn: Connection, workflow_id: int, node_id: str | None = None) -> dict[str, int]:
    """Return the model each node uses: `{node_id: row id of its ai_model node}`."""
    attached = edges.c.edge_label == "llm"
    if node_id is not None:
        attached &= edges.c.target_node_id == node_id
    source = (nodes.c.workflow_id == edges.c.workflow_id) & (
        nodes.c.node_id == edges.c.source_node_id
    )
    rows = conn.execute(
        select(edges.c.target_node_id, nodes.c.id)
        .join(nodes, source)
        .where(edges.c.workflow_id == workflow_id, attached)
        # The lowest edge id wins, so it is written last.
        .order_by(edges.c.id.desc())
    )
    return {row.target_node_id: row.id for row in rows}

"""The edges of workflows. Contract: edges.md."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from pipelit.engine.definition import EdgeDef
from pipelit.store.schema import edges

_COLUMNS = tuple(edges.c[name] for name in EdgeDef.__struct_fields__)


def list_edges(conn: Connection, workflow_id: int) -> list[EdgeDef]:
    """Return the edges of a workflow in row order."""
    return _list(conn, edges.c.workflow_id == workflow_id)


def find_edge(conn: Connection, workflow_id: int, edge_id: int) -> EdgeDef | None:
    """Return one edge of a workflow."""
    found = _list(conn, edges.c.workflow_id == workflow_id, edges.c.id == edge_id)
    return found[0] if found else None


def edges_of_node(conn: Connection, workflow_id: int, node_id: str) -> list[EdgeDef]:
    """Return the edges that begin or end at a node, in row order."""
    touching = or_(edges.c.source_node_id == node_id, edges.c.target_node_id == node_id)
    return _list(conn, edges.c.workflow_id == workflow_id, touching)


def edges_between(conn: Connection, workflow_id: int, source: str, target: str) -> list[EdgeDef]:
    """Return the edges from one node to another, in row order."""
    ends = (edges.c.source_node_id == source, edges.c.target_node_id == target)
    return _list(conn, edges.c.workflow_id == workflow_id, *ends)


def edges_naming(conn: Connection, workflow_id: int, node_id: str) -> list[EdgeDef]:
    """Return the edges that may name a node, at an end or in a condition mapping, in row order."""
    naming = or_(
        edges.c.source_node_id == node_id,
        edges.c.target_node_id == node_id,
        edges.c.condition_mapping.is_not(None),
    )
    return _list(conn, edges.c.workflow_id == workflow_id, naming)


def count_edges(conn: Connection, workflow_id: int) -> int:
    """Return how many edges a workflow has."""
    counted = select(func.count()).select_from(edges).where(edges.c.workflow_id == workflow_id)
    return conn.scalar(counted) or 0


def insert_edge(conn: Connection, workflow_id: int, edge: EdgeDef) -> EdgeDef:
    """Store an edge; return it with its id. The given id does not matter."""
    values = _values(edge)
    row_id = conn.execute(
        insert(edges).values(workflow_id=workflow_id, **values).returning(edges.c.id)
    )
    return msgspec.structs.replace(edge, id=int(row_id.scalar_one()))


def update_edge(conn: Connection, edge: EdgeDef) -> None:
    """Write *edge* over the stored edge with its id."""
    conn.execute(update(edges).where(edges.c.id == edge.id).values(**_values(edge)))


def delete_edge(conn: Connection, edge_id: int) -> None:
    """Remove an edge."""
    conn.execute(delete(edges).where(edges.c.id == edge_id))


def _values(edge: EdgeDef) -> Mapping[str, Any]:
    values = msgspec.structs.asdict(edge)
    del values["id"]
    return values


def _list(conn: Connection, *conditions: ColumnElement[bool]) -> list[EdgeDef]:
    rows = conn.execute(select(*_COLUMNS).where(*conditions).order_by(edges.c.id))
    return [EdgeDef(**row) for row in rows.mappings()]

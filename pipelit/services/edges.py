"""Edges: drawn, changed, taken away. Contract: edges.md."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import msgspec
from sqlalchemy import Connection

from pipelit.actors.turns import event_data
from pipelit.engine.definition import MAX_EDGES, EdgeDef
from pipelit.engine.edges import Violation, first_violation
from pipelit.errors import Conflict, Invalid, NotFound
from pipelit.services.canvas import (
    Canvas,
    CanvasEvent,
    get_changeable,
    get_readable,
    require_change,
)
from pipelit.services.principal import Principal
from pipelit.store.queries import edges as queries
from pipelit.store.queries.nodes import node_types
from pipelit.store.queries.workflows import touch_workflow

EDGE_NOT_FOUND = "Edge not found."
LIMIT_REACHED = "Workflow edge limit reached."


class EdgesService:
    """What the contract's edges section lets people do."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas

    async def browse(self, principal: Principal, slug: str) -> list[EdgeDef]:
        """Return the edges of a workflow in row order.

        Raises:
            NotFound: no such workflow, or not visible.
        """

        def load(conn: Connection) -> list[EdgeDef]:
            return queries.list_edges(conn, get_readable(conn, principal, slug).id)

        return await self._canvas.read(load)

    async def get(self, principal: Principal, slug: str, edge_id: int) -> EdgeDef:
        """Return one edge.

        Raises:
            NotFound: no such workflow or edge, or not visible.
        """

        def load(conn: Connection) -> EdgeDef:
            return _get(conn, get_readable(conn, principal, slug).id, edge_id)

        return await self._canvas.read(load)

    async def create(self, principal: Principal, slug: str, fields: Mapping[str, Any]) -> EdgeDef:
        """Draw an edge.

        Raises:
            NotFound: no such workflow, or not visible.
            Forbidden: the workflow is public, but somebody else's.
            Invalid: a rule of edges.md is broken.
            Conflict: the edge exists, or the workflow is full.
        """
        wanted = EdgeDef(id=0, **fields)

        def insert(conn: Connection) -> EdgeDef:
            workflow = get_changeable(conn, principal, slug)
            _check(conn, workflow.id, wanted)
            if workflow.edge_count >= MAX_EDGES:
                raise Conflict(LIMIT_REACHED)
            touch_workflow(conn, workflow.id)
            return queries.insert_edge(conn, workflow.id, wanted)

        def tell(edge: EdgeDef) -> Iterator[CanvasEvent]:
            yield CanvasEvent(slug, "edge_created", event_data(edge))

        return await self._canvas.write(slug, insert, tell)

    async def change(
        self, principal: Principal, slug: str, edge_id: int, fields: Mapping[str, Any]
    ) -> EdgeDef:
        """Change the given *fields* of an edge; none given changes and tells nothing.

        Raises:
            NotFound: no such workflow or edge, or not visible.
            Forbidden: the workflow is public, but somebody else's.
            Invalid: the resulting edge breaks a rule of edges.md.
            Conflict: the resulting edge exists already.
        """

        def update(conn: Connection) -> EdgeDef:
            workflow = get_readable(conn, principal, slug)
            edge = msgspec.structs.replace(_get(conn, workflow.id, edge_id), **fields)
            require_change(principal, workflow)
            if fields:
                _check(conn, workflow.id, edge)
                queries.update_edge(conn, edge)
                touch_workflow(conn, workflow.id)
            return edge

        def tell(edge: EdgeDef) -> Iterator[CanvasEvent]:
            if fields:
                yield CanvasEvent(slug, "edge_updated", event_data(edge))

        return await self._canvas.write(slug, update, tell)

    async def delete(self, principal: Principal, slug: str, edge_id: int) -> None:
        """Take an edge away.

        Raises:
            NotFound: no such workflow or edge, or not visible.
            Forbidden: the workflow is public, but somebody else's.
        """

        def remove(conn: Connection) -> None:
            workflow = get_readable(conn, principal, slug)
            edge = _get(conn, workflow.id, edge_id)
            require_change(principal, workflow)
            queries.delete_edge(conn, edge.id)
            touch_workflow(conn, workflow.id)

        def tell(_: None) -> Iterator[CanvasEvent]:
            yield CanvasEvent(slug, "edge_deleted", {"id": edge_id})

        await self._canvas.write(slug, remove, tell)


def _get(conn: Connection, workflow_id: int, edge_id: int) -> EdgeDef:
    edge = queries.find_edge(conn, workflow_id, edge_id)
    if edge is None:
        raise NotFound(EDGE_NOT_FOUND)
    return edge


def _check(conn: Connection, workflow_id: int, edge: EdgeDef) -> None:
    ends = (edge.source_node_id, edge.target_node_id)
    types = node_types(conn, workflow_id, ends)
    violation = first_violation(edge, types, queries.edges_between(conn, workflow_id, *ends))
    if violation:
        _refuse(violation)


def _refuse(violation: Violation) -> NoReturn:
    match violation.form:
        case "string":
            raise Invalid(violation.messages[0])
        case "list":
            raise Invalid(problems=violation.messages)
        case "conflict":
            raise Conflict(violation.messages[0])

"""Nodes: put on the canvas, changed, renamed, taken off. Contract: nodes.md."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.actors.turns import event_data
from pipelit.clock import Clock, Ids
from pipelit.engine import specs
from pipelit.engine.definition import MAX_NODES, EdgeDef
from pipelit.errors import Conflict, NotFound
from pipelit.services.canvas import (
    Canvas,
    CanvasEvent,
    get_changeable,
    get_readable,
    require_change,
)
from pipelit.services.canvas_views import Node
from pipelit.services.node_rules import (
    apply_change,
    check_references,
    interrupts_before,
    kept_config,
    merge_fields,
)
from pipelit.services.principal import Principal
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedule_views import show_node_with_job, show_nodes
from pipelit.store.queries import edges as edge_queries
from pipelit.store.queries import nodes as queries
from pipelit.store.queries.nodes import NodeRow
from pipelit.store.queries.workflows import touch_workflow

NODE_NOT_FOUND = "Node not found."
LIMIT_REACHED = "Workflow node limit reached."


class _Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of one node did. `previous_id` is None when nothing was asked for."""

    node: Node
    previous_id: str | None
    edges: Sequence[EdgeDef] = ()
    jobs: Sequence[str] = ()
    """Removed with the old type."""


class _Deleted(msgspec.Struct, frozen=True):
    """What went with a node."""

    edges: Sequence[EdgeDef]
    jobs: Sequence[str]


class NodesService:
    """What the contract's nodes section lets people do."""

    def __init__(
        self, canvas: Canvas, clock: Clock, ids: Ids, *, schedules: ScheduleActors
    ) -> None:
        self._canvas = canvas
        self._clock = clock
        self._ids = ids
        self._schedules = schedules

    async def browse(self, principal: Principal, slug: str) -> list[Node]:
        """Return the nodes of a workflow in row order.

        Raises:
            NotFound: no such workflow, or not visible.
        """

        def load(conn: Connection) -> list[Node]:
            workflow = get_readable(conn, principal, slug)
            return show_nodes(conn, workflow.id, queries.list_nodes(conn, workflow.id))

        return await self._canvas.read(load)

    async def get(self, principal: Principal, slug: str, node_id: str) -> Node:
        """Return one node.

        Raises:
            NotFound: no such workflow or node, or not visible.
        """

        def load(conn: Connection) -> Node:
            return _show(conn, get_readable(conn, principal, slug).id, node_id)

        return await self._canvas.read(load)

    async def create(self, principal: Principal, slug: str, fields: Mapping[str, Any]) -> Node:
        """Put a node on the canvas.

        Args:
            principal: who asks.
            slug: of the workflow.
            fields: those of nodes.md; `node_id` may be missing or None, `config` partial.

        Raises:
            NotFound: the workflow or something the node refers to is not there or not visible.
            Forbidden: the workflow is public, but somebody else's.
            BadRequest: the credential is not one for models.
            Conflict: the id is taken, or the workflow is full.
        """
        component_type = fields["component_type"]
        values = {
            **fields,
            "node_id": fields.get("node_id") or f"{component_type}_{self._ids.hex(8)}",
            "config": specs.complete_config(component_type, fields.get("config", {})),
            "interrupt_before": interrupts_before(component_type, fields),
            "updated_at": self._clock.now(),
        }

        def insert(conn: Connection) -> Node:
            workflow = get_changeable(conn, principal, slug)
            check_references(conn, principal, values, values["config"])
            if workflow.node_count >= MAX_NODES:
                raise Conflict(LIMIT_REACHED)
            queries.insert_node(conn, workflow.id, values)
            touch_workflow(conn, workflow.id)
            return _show(conn, workflow.id, values["node_id"])

        def tell(node: Node) -> Iterator[CanvasEvent]:
            yield CanvasEvent(slug, "node_created", event_data(node))

        try:
            return await self._canvas.write(slug, insert, tell)
        except queries.NodeIdTaken as error:
            raise Conflict(id_taken(values["node_id"])) from error

    async def change(
        self, principal: Principal, slug: str, node_id: str, fields: Mapping[str, Any]
    ) -> Node:
        """Change the given *fields* of a node; none given changes and tells nothing.

        A `config` is merged key by key. With a new `node_id` the edges and schedules follow.

        Raises:
            NotFound: the workflow, the node or something it refers to is not there or not visible.
            Forbidden: the workflow is public, but somebody else's.
            BadRequest: the credential is not one for models.
            Conflict: the new id is taken.
            Invalid: an edge of the node does not allow its new type.
        """
        now = self._clock.now()

        def update(conn: Connection) -> _Changed:
            workflow = get_readable(conn, principal, slug)
            old = get_node(conn, workflow.id, node_id)
            require_change(principal, workflow)
            if not fields:
                return _Changed(node=_show(conn, workflow.id, node_id), previous_id=None)
            check_references(conn, principal, fields, kept_config(old, fields))
            new = msgspec.structs.replace(old, **merge_fields(old, fields), updated_at=now)
            edges, jobs = apply_change(conn, workflow.id, old, new)
            touch_workflow(conn, workflow.id)
            node = _show(conn, workflow.id, new.node_id)
            return _Changed(node=node, previous_id=old.node_id, edges=edges, jobs=jobs)

        def tell(changed: _Changed) -> Iterator[CanvasEvent]:
            self._schedules.wake(changed.jobs)
            yield from _tell_change(slug, changed)

        try:
            changed = await self._canvas.write(slug, update, tell)
        except queries.NodeIdTaken as error:
            raise Conflict(id_taken(fields.get("node_id", node_id))) from error
        return changed.node

    async def delete(self, principal: Principal, slug: str, node_id: str) -> None:
        """Take a node off the canvas, with its edges and schedules.

        Raises:
            NotFound: no such workflow or node, or not visible.
            Forbidden: the workflow is public, but somebody else's.
        """

        def remove(conn: Connection) -> _Deleted:
            workflow = get_readable(conn, principal, slug)
            node = get_node(conn, workflow.id, node_id)
            require_change(principal, workflow)
            edges = edge_queries.edges_of_node(conn, workflow.id, node_id)
            for edge in edges:
                edge_queries.delete_edge(conn, edge.id)
            jobs = []
            if node.component_type == "trigger_schedule":
                jobs = queries.delete_schedules(conn, workflow.id, node_id)
            queries.delete_node(conn, node.id)
            touch_workflow(conn, workflow.id)
            return _Deleted(edges, jobs)

        def tell(deleted: _Deleted) -> Iterator[CanvasEvent]:
            self._schedules.wake(deleted.jobs)
            for edge in deleted.edges:
                yield CanvasEvent(slug, "edge_deleted", {"id": edge.id})
            yield CanvasEvent(slug, "node_deleted", {"node_id": node_id})

        await self._canvas.write(slug, remove, tell)


def id_taken(node_id: str) -> str:
    """Return the refusal of an id that another node of the workflow has."""
    return f"Node with id '{node_id}' already exists."


def get_node(conn: Connection, workflow_id: int, node_id: str) -> NodeRow:
    """Return one node.

    Raises:
        NotFound: the workflow has no such node.
    """
    node = queries.find_node(conn, workflow_id, node_id)
    if node is None:
        raise NotFound(NODE_NOT_FOUND)
    return node


def _show(conn: Connection, workflow_id: int, node_id: str) -> Node:
    return show_node_with_job(conn, workflow_id, get_node(conn, workflow_id, node_id))


def _tell_change(slug: str, changed: _Changed) -> Iterator[CanvasEvent]:
    if changed.previous_id is None:
        return
    for edge in changed.edges:
        yield CanvasEvent(slug, "edge_updated", event_data(edge))
    data = event_data(changed.node)
    if changed.previous_id != changed.node.node_id:
        data["previous_node_id"] = changed.previous_id
    yield CanvasEvent(slug, "node_updated", data)

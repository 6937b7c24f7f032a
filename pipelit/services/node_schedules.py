"""The job of a `trigger_schedule` node: started, paused, stopped on the canvas.

Contract: nodes.md "Schedule actions", engine.md §26.7.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec
from sqlalchemy import Connection

from pipelit.actors.turns import event_data
from pipelit.clock import Clock, Ids
from pipelit.engine import schedule as rules
from pipelit.errors import BadRequest, NotFound
from pipelit.services.canvas import Canvas, CanvasEvent, get_readable, require_change
from pipelit.services.canvas_views import Node
from pipelit.services.nodes import get_node
from pipelit.services.principal import Principal
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedule_settings import node_settings
from pipelit.services.schedule_views import show_node_with_job
from pipelit.services.schedules import lock_job, new_job, pause_job, put_job, require_room
from pipelit.store.queries import nodes as node_queries
from pipelit.store.queries import schedules as queries
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.nodes import NodeRow
from pipelit.store.queries.schedules import ScheduleRow
from pipelit.store.queries.workflows import touch_workflow

NOT_A_SCHEDULE = "Node is not a trigger_schedule."
NO_JOB = "No scheduled job found for this node."


class _Done(msgspec.Struct, frozen=True):
    """What an action left: the node, and the job whose actor has to look."""

    node: Node
    job_id: str


class NodeSchedulesService:
    """What the contract's schedule actions let people do."""

    def __init__(
        self, canvas: Canvas, clock: Clock, ids: Ids, *, owner: Owner, actors: ScheduleActors
    ) -> None:
        self._canvas = canvas
        self._clock = clock
        self._ids = ids
        self._owner = owner
        self._actors = actors

    async def start(self, principal: Principal, slug: str, node_id: str) -> Node:
        """Create the node's job, or update it from the node's settings and make it active.

        Raises:
            NotFound: no such workflow or node, or not visible.
            Forbidden: the workflow is public, but somebody else's.
            BadRequest: the node is not a `trigger_schedule`.
            Invalid: the settings in the node's `extra_config`.
            Conflict: the caller has as many active jobs as there may be.
        """
        new_id, now = self._ids.uuid(), self._clock.now()

        def act(conn: Connection, workflow_id: int, node: NodeRow) -> str:
            _require_schedule(node)
            settings = node_settings(node.config["extra_config"], now=now)
            own = queries.find_of_node(conn, workflow_id, node.node_id)
            if own is not None:
                job = lock_job(conn, own.id)
                started = _started(job, msgspec.structs.replace(job, **settings), now)
                return put_job(conn, started, owner=self._owner, now=now).id
            require_room(conn, principal)
            named = {"name": f"schedule:{node.node_id}", "description": ""}
            place = {"workflow_id": workflow_id, "trigger_node_id": node.node_id}
            created = new_job(
                {**settings, **named, **place},
                job_id=new_id,
                user_id=principal.user_id,
                owner=self._owner,
                now=now,
            )
            queries.add(conn, created)
            return new_id

        return await self._act(principal, slug, node_id, act, is_active=True, now=now)

    async def pause(self, principal: Principal, slug: str, node_id: str) -> Node:
        """Pause the node's active job.

        Raises:
            NotFound: no such workflow or node, or not visible; the node has no job.
            Forbidden: the workflow is public, but somebody else's.
            BadRequest: the job is not active.
        """
        now = self._clock.now()

        def act(conn: Connection, workflow_id: int, node: NodeRow) -> str:
            paused = pause_job(_require_job(conn, workflow_id, node))
            return put_job(conn, paused, owner=self._owner, now=now).id

        return await self._act(principal, slug, node_id, act, is_active=False, now=now)

    async def stop(self, principal: Principal, slug: str, node_id: str) -> Node:
        """Remove the node's job; a running execution continues.

        Raises:
            NotFound: no such workflow or node, or not visible; the node has no job.
            Forbidden: the workflow is public, but somebody else's.
            BadRequest: the node is not a `trigger_schedule`.
        """

        def act(conn: Connection, workflow_id: int, node: NodeRow) -> str:
            _require_schedule(node)
            job = _require_job(conn, workflow_id, node)
            queries.remove(conn, [job.id], None)
            return job.id

        now = self._clock.now()
        return await self._act(principal, slug, node_id, act, is_active=False, now=now)

    async def _act(
        self,
        principal: Principal,
        slug: str,
        node_id: str,
        act: Callable[[Connection, int, NodeRow], str],
        *,
        is_active: bool,
        now: datetime,
    ) -> Node:
        def unit(conn: Connection) -> _Done:
            workflow = get_readable(conn, principal, slug)
            node = get_node(conn, workflow.id, node_id)
            require_change(principal, workflow)
            job_id = act(conn, workflow.id, node)
            values = {"config": {**node.config, "is_active": is_active}, "updated_at": now}
            node_queries.update_node(conn, node.id, values)
            touch_workflow(conn, workflow.id)
            changed = get_node(conn, workflow.id, node_id)
            return _Done(show_node_with_job(conn, workflow.id, changed), job_id)

        def tell(done: _Done) -> Iterator[CanvasEvent]:
            self._actors.wake([done.job_id])
            yield CanvasEvent(slug, "node_updated", event_data(done.node))

        return (await self._canvas.write(slug, unit, tell)).node


def _started(old: ScheduleRow, new: ScheduleRow, now: datetime) -> ScheduleRow:
    """Return the job as its start leaves it; *new* is *old* with the node's settings."""
    match old.status:
        case "active":
            return rules.change(old, new, now=now)
        case "paused":
            return rules.begin(new, now=now)
        case "done" | "dead":
            return rules.restart(new, now=now)


def _require_schedule(node: NodeRow) -> None:
    if node.component_type != "trigger_schedule":
        raise BadRequest(NOT_A_SCHEDULE)


def _require_job(conn: Connection, workflow_id: int, node: NodeRow) -> ScheduleRow:
    job = queries.find_of_node(conn, workflow_id, node.node_id)
    if job is None:
        raise NotFound(NO_JOB)
    return lock_job(conn, job.id)

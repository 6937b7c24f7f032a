"""Workflows: made, listed, changed, validated, deleted. Contract: workflows.md."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import msgspec
import trio
from sqlalchemy import Connection

from pipelit.actors.turns import event_data
from pipelit.clock import Clock
from pipelit.engine.advice import Origin
from pipelit.engine.dsl import Checked
from pipelit.engine.validate import Report, validate_workflow
from pipelit.errors import BadRequest, Conflict, NotFound, Unavailable
from pipelit.services import visibility
from pipelit.services.canvas import (
    WORKFLOW_NOT_FOUND,
    Canvas,
    CanvasEvent,
    can_read,
    get_changeable,
    get_readable,
)
from pipelit.services.canvas_views import (
    Workflow,
    WorkflowDetail,
    show_workflow,
)
from pipelit.services.documents import check_stored
from pipelit.services.model_lists import ModelLists
from pipelit.services.principal import Principal
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedule_views import show_nodes
from pipelit.store.queries import workflows as queries
from pipelit.store.queries.edges import list_edges
from pipelit.store.queries.nodes import list_nodes
from pipelit.store.queries.workflows import WorkflowRow

SWEEP_PATIENCE = 5.0
"""Seconds that a deletion waits for executions which began while it was being committed."""
OWN_HANDLER = "A workflow cannot be its own error handler."


def slug_taken(slug: str) -> str:
    """Return the refusal of a slug that another workflow has."""
    return f"Workflow with slug '{slug}' already exists."


class ExecutionsPort(Protocol):
    """What deleting a workflow asks of whoever runs executions."""

    async def cancel_all_of(self, workflow_id: int) -> None:
        """Cancel every active execution of the workflow and wait until they have ended."""


class WorkflowsService:
    """What the contract's workflows section lets people do.

    Rights are checked inside the unit that changes, so nothing can move in between.

    Args:
        canvas: shared with the services of nodes and edges.
        clock: tells when something was changed.
        executions: ends the runs of a workflow that goes.
        schedules: hears which jobs went with it.
        default_limit: returns the global execution limit in seconds; may be called in any thread.
        model_lists: what providers answered when they were last asked.
    """

    def __init__(
        self,
        canvas: Canvas,
        clock: Clock,
        *,
        executions: ExecutionsPort,
        schedules: ScheduleActors,
        default_limit: Callable[[], int],
        model_lists: ModelLists,
    ) -> None:
        self._canvas = canvas
        self._clock = clock
        self._executions = executions
        self._schedules = schedules
        self._default_limit = default_limit
        self._model_lists = model_lists

    async def browse(
        self, principal: Principal, *, limit: int, offset: int
    ) -> tuple[Sequence[Workflow], int]:
        """Return a page of the workflows *principal* owns (an admin: all) and how many there are.

        Public workflows of others are readable, but not listed.
        """
        owners = visibility.owners_in_scope(principal)
        query = partial(queries.list_workflows, owners=owners, limit=limit, offset=offset)
        rows, total = await self._canvas.read(query)
        return [self._show(row) for row in rows], total

    async def get(self, principal: Principal, slug: str) -> WorkflowDetail:
        """Return a workflow with its nodes and edges.

        Raises:
            NotFound: there is none, or none that the caller may see.
        """

        def load(conn: Connection) -> WorkflowDetail:
            row = get_readable(conn, principal, slug)
            return WorkflowDetail(
                **msgspec.structs.asdict(self._show(row)),
                nodes=show_nodes(conn, row.id, list_nodes(conn, row.id)),
                edges=list_edges(conn, row.id),
            )

        return await self._canvas.read(load)

    async def create(self, principal: Principal, fields: Mapping[str, Any]) -> Workflow:
        """Store a new workflow of *principal*.

        Raises:
            NotFound: the error handler is not there or not visible.
            Conflict: the slug is taken.
        """
        now = self._clock.now()
        values = {**fields, "owner_id": principal.user_id, "created_at": now, "updated_at": now}

        def insert(conn: Connection) -> Workflow:
            _check_handler(conn, principal, fields.get("error_handler_workflow_id"))
            row_id = queries.insert_workflow(conn, values)
            if fields.get("is_default"):
                queries.clear_default(conn, principal.user_id, but=row_id)
            return self._show(_reload(conn, row_id))

        slug: str = fields["slug"]
        try:
            return await self._canvas.write(slug, insert, lambda _: ())
        except queries.SlugTaken as error:
            raise Conflict(slug_taken(slug)) from error

    async def change(self, principal: Principal, slug: str, fields: Mapping[str, Any]) -> Workflow:
        """Change the given *fields* of a workflow; none given changes and tells nothing.

        Raises:
            NotFound: the workflow or its new error handler is not there or not visible.
            Forbidden: it is public, but somebody else's.
            BadRequest: it would be its own error handler.
            Conflict: the slug is taken.
        """
        values = {**fields, "updated_at": self._clock.now()}

        def update(conn: Connection) -> Workflow:
            row = get_changeable(conn, principal, slug)
            if not fields:
                return self._show(row)
            handler = fields.get("error_handler_workflow_id")
            _check_handler(conn, principal, handler)
            if handler == row.id:
                raise BadRequest(OWN_HANDLER)
            queries.update_workflow(conn, row.id, values)
            if fields.get("is_default"):
                queries.clear_default(conn, row.owner_id, but=row.id)
            return self._show(_reload(conn, row.id))

        def tell(workflow: Workflow) -> Iterator[CanvasEvent]:
            for name in dict.fromkeys((slug, workflow.slug)) if fields else ():
                yield CanvasEvent(name, "workflow_updated", event_data(workflow))

        try:
            return await self._canvas.write(slug, update, tell)
        except queries.SlugTaken as error:
            raise Conflict(slug_taken(fields.get("slug", slug))) from error

    async def delete(self, principal: Principal, slug: str) -> None:
        """Delete a workflow; its active executions are cancelled, their records stay.

        Raises:
            NotFound: there is none, or none that the caller may see.
            Forbidden: it is public, but somebody else's.
        """
        row = await self._canvas.read(partial(get_changeable, principal=principal, slug=slug))
        await self._bury([row], turn=slug)

    async def delete_many(self, principal: Principal, slugs: Sequence[str]) -> None:
        """Delete those of the named workflows that exist and that *principal* may change."""
        rows = await self._canvas.read(partial(queries.find_workflows, slugs=slugs))
        doomed = [row for row in rows if visibility.can_change_workflow(principal, row.owner_id)]
        if doomed:
            await self._bury(doomed, turn="")

    async def validate(self, principal: Principal, slug: str) -> Report:
        """Check a whole workflow without running it.

        Raises:
            NotFound: there is none, or none that the caller may see.
        """

        # Checking a thousand nodes takes a while: in the reader's thread, not on the loop.
        def check(conn: Connection) -> Report:
            row = get_readable(conn, principal, slug)
            origin = Origin(workflow_id=row.id, slug=row.slug)
            return validate_workflow(list_nodes(conn, row.id), list_edges(conn, row.id), origin)

        return await self._canvas.read(check)

    async def check_dsl(self, principal: Principal, text: str) -> Checked:
        """Tell whether a YAML definition compiles; nothing is stored and no provider is called."""
        check = partial(check_stored, text=text, lists=self._model_lists, principal=principal)
        return await self._canvas.read(check)

    async def _bury(self, rows: Sequence[WorkflowRow], *, turn: str) -> None:
        for row in rows:
            await self._executions.cancel_all_of(row.id)
        now = self._clock.now()

        def bury(conn: Connection) -> list[tuple[WorkflowRow, list[str]]]:
            alive = [row for row in rows if queries.find_workflow_by_id(conn, row.id)]
            return [(row, queries.bury_workflow(conn, row.id, now=now)) for row in alive]

        def tell(buried: Sequence[tuple[WorkflowRow, list[str]]]) -> Iterator[CanvasEvent]:
            for row, jobs in buried:
                self._schedules.wake(jobs)
                yield CanvasEvent(row.slug, "workflow_deleted", {"id": row.id, "slug": row.slug})

        buried = await self._canvas.write(turn, bury, tell)
        # Whatever was started between the first cancellation and the commit. The workflows are
        # gone by now, so neither a caller who leaves nor a slow execution is a reason to stop.
        with trio.move_on_after(SWEEP_PATIENCE, shield=True):
            for row, _ in buried:
                with suppress(Unavailable):
                    await self._executions.cancel_all_of(row.id)

    def _show(self, row: WorkflowRow) -> Workflow:
        return show_workflow(row, default_limit=self._default_limit())


def _check_handler(conn: Connection, principal: Principal, handler_id: int | None) -> None:
    if handler_id is None:
        return
    handler = queries.find_workflow_by_id(conn, handler_id)
    if handler is None or not can_read(principal, handler):
        raise NotFound(WORKFLOW_NOT_FOUND)


def _reload(conn: Connection, workflow_id: int) -> WorkflowRow:
    row = queries.find_workflow_by_id(conn, workflow_id)
    if row is None:
        raise LookupError(f"workflow {workflow_id} vanished inside its own unit")
    return row

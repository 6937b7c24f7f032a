"""Executions: listed, shown, started by hand, cancelled. Contract: executions.md, beyond.md §1."""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
import trio
from sqlalchemy import Connection

from pipelit.actors.manager_messages import CancelExecution, ManagerMessage
from pipelit.actors.runtime import ActorDied, ActorRef, AskTimeout, MailboxFull
from pipelit.engine.outcome import micros_to_usd
from pipelit.engine.trigger import manual_trigger
from pipelit.errors import NotFound, Unavailable
from pipelit.services.canvas import WORKFLOW_NOT_FOUND
from pipelit.services.principal import Principal
from pipelit.services.starts import (
    Fired,
    NoWorkTaken,
    RepeatableRequest,
    Started,
    Starter,
    choose_trigger,
    find_target,
)
from pipelit.services.visibility import can_see_execution, owners_in_scope
from pipelit.store import Store
from pipelit.store.queries import executions as queries
from pipelit.store.queries import needed, questions
from pipelit.store.queries.questions import OpenQuestion

NOT_FOUND = "Execution not found."
NO_MANUAL_TRIGGER = "No trigger configured for manual execution"
TRIGGER_NOT_FOUND = "Manual trigger node not found"
CANCEL_TIMEOUT = 40.0
CANCELS_AT_ONCE = 50
LINKED_PATIENCE = 5.0


class ExecutionView(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as lists show it."""

    execution_id: str
    workflow_slug: str
    status: str
    error_message: str
    error_code: str | None
    started_at: datetime | None
    completed_at: datetime | None
    total_tokens: int
    total_cost_usd: float
    llm_calls: int
    retry_of: str | None


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """One log row: an attempt of a node, or a skip."""

    id: int
    node_id: str
    status: str
    input: dict[str, Any] | None
    output: Any
    error: str
    error_code: str | None
    metadata: dict[str, Any] | None
    duration_ms: int
    timestamp: datetime


class ExecutionDetailView(ExecutionView, frozen=True, kw_only=True):
    """An execution with its results, payload, logs and open questions."""

    final_output: dict[str, Any] | None
    trigger_payload: dict[str, Any] | None
    last_seq: int
    logs: list[LogView]
    pending_confirmations: list[OpenQuestion]


class ExecutionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The short form of beyond.md §2; `error_message` is null when there is none."""

    execution_id: str
    workflow: str
    status: str
    started_at: datetime | None
    completed_at: datetime | None
    final_output: dict[str, Any] | None
    error_message: str | None


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """A stored event as the channel of its execution carries it."""

    type: str
    channel: str
    timestamp: float
    seq: int
    execution_id: str
    data: dict[str, Any]


class EventPage(msgspec.Struct, frozen=True):
    """Stored events, oldest first."""

    items: list[EventView]
    total: int
    last_seq: int


class ExecutionsService:
    """What the contract's executions section lets people do."""

    def __init__(
        self, store: Store, starter: Starter, *, manager: ActorRef[ManagerMessage]
    ) -> None:
        self._store = store
        self._starter = starter
        self._manager = manager

    async def list_page(
        self,
        principal: Principal,
        *,
        workflow_slug: str | None,
        status: str | None,
        limit: int,
        offset: int,
    ) -> tuple[list[ExecutionView], int]:
        """Return a page of the executions the caller may see, and how many there are."""
        rows, total = await self._store.read(
            lambda conn: queries.list_page(
                conn,
                owners_in_scope(principal),
                workflow_slug=workflow_slug,
                status=status,
                limit=limit,
                offset=offset,
            )
        )
        return [show(row) for row in rows], total

    async def get(self, principal: Principal, execution_id: str) -> ExecutionDetailView:
        """Return one execution with everything.

        Raises:
            NotFound: there is none, or none the caller may see.
        """
        row, asked = await self._store.read(
            lambda conn: (
                queries.find_detail(conn, execution_id),
                questions.list_open(conn, execution_id),
            )
        )
        require_visible(principal, row)
        assert row is not None  # require_visible raised otherwise
        return ExecutionDetailView(
            **_shown(row),
            final_output=row.final_output,
            trigger_payload=row.trigger_payload,
            last_seq=row.last_seq,
            logs=[LogView(**log) for log in row.logs],
            pending_confirmations=asked,
        )

    async def get_status(self, principal: Principal, execution_id: str) -> ExecutionStatus:
        """Return the short form.

        Raises:
            NotFound: as `get`.
        """
        found, output = await self._store.read(lambda conn: queries.find_result(conn, execution_id))
        row = require_visible(principal, found)
        return ExecutionStatus(
            execution_id=row.id,
            workflow=row.workflow_slug,
            status=row.status,
            started_at=row.started_at,
            completed_at=row.completed_at,
            final_output=output,
            error_message=row.error_message or None,
        )

    async def events(
        self, principal: Principal, execution_id: str, *, since: int, limit: int
    ) -> EventPage:
        """Return the stored events after *since*.

        Raises:
            NotFound: as `get`.
        """

        def query(conn: Any) -> tuple[queries.Execution | None, list[queries.StoredEvent]]:
            row = queries.find(conn, execution_id)
            return row, queries.events_after(conn, execution_id, since, limit=limit)

        row, events = await self._store.read(query)
        last_seq = require_visible(principal, row).last_seq
        items = [
            EventView(
                type=event.type,
                channel=f"execution:{execution_id}",
                timestamp=event.timestamp,
                seq=event.seq,
                execution_id=execution_id,
                data=event.data,
            )
            for event in events
        ]
        return EventPage(items, max(0, last_seq - since), last_seq)

    async def require_visible(self, principal: Principal, execution_id: str) -> None:
        """Check that the caller may see an execution.

        Raises:
            NotFound: as `get`.
        """
        row = await self._store.read(lambda conn: queries.find(conn, execution_id))
        require_visible(principal, row)

    async def cancel(self, principal: Principal, execution_id: str) -> ExecutionView:
        """Cancel an execution and return it as it is then; a terminal one is left alone.

        Returns when everything in it is gone: model calls, tools, waits.

        Raises:
            NotFound: as `get`.
            Unavailable: it could not be stopped in time; it is being stopped.
        """
        row = await self._store.read(lambda conn: queries.find(conn, execution_id))
        if require_visible(principal, row).status not in queries.TERMINAL:
            await self._cancel(execution_id)
        row = await self._store.read(lambda conn: queries.find(conn, execution_id))
        return show(require_visible(principal, row))

    async def cancel_all_of(self, workflow_id: int) -> None:
        """Cancel every active execution of a workflow and wait until they have ended."""
        await self._cancel_all(
            await self._store.read(lambda conn: queries.active_of_workflow(conn, workflow_id))
        )

    async def cancel_each(self, principal: Principal, execution_ids: Collection[str]) -> None:
        """Cancel those that the caller may cancel and that run; wait a little until they have.

        What they are cancelled for has been committed: once begun it is not taken back when the
        caller goes, and one that is slow to stop is being stopped and keeps nobody waiting.
        """
        owners = owners_in_scope(principal)

        async def cancel(execution_id: str) -> None:
            with suppress(Unavailable):
                await self._cancel(execution_id)

        with trio.move_on_after(LINKED_PATIENCE, shield=True):
            rows = await self._store.read(
                lambda conn: queries.list_visible(conn, execution_ids, owners)
            )
            async with trio.open_nursery() as nursery:
                for row in rows:
                    if row.status not in queries.TERMINAL:
                        nursery.start_soon(cancel, row.id)

    async def delete_many(self, principal: Principal, execution_ids: Collection[str]) -> None:
        """Delete those that exist and that the caller may see; active ones are cancelled first.

        All are deleted in one transaction, with logs, events, journal and graph. What an
        execution that goes on still needs stays: what its descendants used, what it retries.

        Raises:
            Unavailable: some could not be stopped in time; nothing is deleted.
        """
        owners = owners_in_scope(principal)
        rows = await self._store.read(
            lambda conn: queries.list_visible(conn, execution_ids, owners)
        )
        await self._cancel_all([row.id for row in rows if row.status not in queries.TERMINAL])
        doomed = {row.id for row in rows}

        def unit(conn: Connection) -> None:
            queries.delete_ended(conn, doomed - needed.find_needed(conn, doomed))

        await self._store.write(unit)

    async def run(
        self,
        principal: Principal,
        slug: str,
        *,
        text: str,
        payload: dict[str, Any],
        trigger_node_id: str | None,
        request: RepeatableRequest | None,
    ) -> Started:
        """Start a workflow from its manual trigger.

        Raises:
            NotFound: workflow (also when it is inactive) or trigger.
            Conflict: the Idempotency-Key belongs to another request.
            Unavailable: the engine takes no work.
        """
        now = self._starter.now()
        target = await self._store.read(
            lambda conn: find_target(conn, principal, slug, "trigger_manual", request, now=now)
        )
        if target.replay is not None:
            return target.replay
        if not target.workflow.is_active:
            raise NotFound(WORKFLOW_NOT_FOUND)
        trigger = choose_trigger(target.triggers, trigger_node_id)
        if trigger is None:
            raise NotFound(NO_MANUAL_TRIGGER if trigger_node_id is None else TRIGGER_NOT_FOUND)
        received = {"text": text, **({"payload": payload} if payload else {})}
        new = self._starter.describe(
            Fired(
                workflow=target.workflow,
                trigger_node=trigger,
                user_id=principal.user_id,
                source="manual",
                payload=received,
                trigger=manual_trigger(
                    received,
                    workflow_slug=target.workflow.slug,
                    user_id=principal.user_id,
                    user_name=principal.username,
                ),
            )
        )
        body = {"execution_id": new.id, "status": "pending"}
        return await self._starter.start(new, Started(body), request)

    async def _cancel_all(self, execution_ids: Collection[str]) -> None:
        limiter, refusals = trio.CapacityLimiter(CANCELS_AT_ONCE), list[Unavailable]()

        async def cancel(execution_id: str) -> None:
            async with limiter:
                try:
                    await self._cancel(execution_id)
                except Unavailable as error:
                    refusals.append(error)

        async with trio.open_nursery() as nursery:
            for execution_id in execution_ids:
                nursery.start_soon(cancel, execution_id)
        if refusals:
            raise refusals[0]

    async def _cancel(self, execution_id: str) -> None:
        try:
            await self._manager.ask(CancelExecution(execution_id), timeout=CANCEL_TIMEOUT)
        except ActorDied as error:
            raise Unavailable("Server is shutting down.") from error
        except (MailboxFull, AskTimeout) as error:
            raise NoWorkTaken from error


def require_visible(principal: Principal, row: queries.Execution | None) -> queries.Execution:
    """Return an execution that the caller may see.

    Raises:
        NotFound: there is none, or the caller may not.
    """
    if row is None or not can_see_execution(principal, row.workflow_owner_id, row.user_id):
        raise NotFound(NOT_FOUND)
    return row


def show(row: queries.Execution) -> ExecutionView:
    """Return an execution as lists show it."""
    return ExecutionView(**_shown(row))


def _shown(row: queries.Execution) -> dict[str, Any]:
    return {
        "execution_id": row.id,
        "workflow_slug": row.workflow_slug,
        "status": row.status,
        "error_message": row.error_message,
        "error_code": row.error_code,
        "started_at": row.started_at,
        "completed_at": row.completed_at,
        "total_tokens": row.total_tokens,
        "total_cost_usd": micros_to_usd(row.cost_micros),
        "llm_calls": row.llm_calls,
        "retry_of": row.retry_of,
    }

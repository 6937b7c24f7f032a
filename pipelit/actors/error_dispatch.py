"""Starts what handles the failures of executions: error triggers, error handler workflows.

A failure to be handled is a row, written with the end of its run. The executions that handle it
are stored in the transaction that marks it as done, so each failure is handled once; a crash only
delays it. Contract: engine.md §17.2–17.4.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeAlias, assert_never

import msgspec
import structlog
from sqlalchemy import Connection

from pipelit.actors import paths
from pipelit.actors.after_end import FailureNoted
from pipelit.actors.manager_messages import ManagerMessage, Start
from pipelit.actors.runtime import Actor, ActorError, ActorRef, Message
from pipelit.clock import Clock, Ids, format_instant
from pipelit.engine.error_dispatch import (
    HANDLER_TRIGGERS,
    RunFailure,
    error_payload,
    error_trigger,
    first_trigger,
)
from pipelit.store import Store, StoreError
from pipelit.store.queries import dispatches, executions, failures
from pipelit.store.queries.dispatches import ERROR
from pipelit.store.queries.executions import NewExecution
from pipelit.store.queries.failures import Failed
from pipelit.store.queries.nodes import list_triggers
from pipelit.store.queries.workflows import WorkflowRow, find_workflow_by_id

INTERVAL = 30.0
PAGE = 100

log = structlog.get_logger(__name__)


class Round(Message, frozen=True):
    """Time to look without being told: for what a crash or an error left behind."""


ErrorDispatchMessage: TypeAlias = FailureNoted | Round


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution has before it is known what it is for."""

    id: str
    thread_id: str
    created_at: datetime
    default_limit: int


class ErrorDispatch(Actor[ErrorDispatchMessage]):
    """One per server. On a shared database whoever comes first does it."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, *, default_limit: int) -> None:
        """`default_limit`: seconds of an execution whose workflow sets no limit."""
        self._store = store
        self._clock = clock
        self._ids = ids
        self._default_limit = default_limit

    async def on_start(self) -> None:
        """Take up what was left behind."""
        self._manager: ActorRef[ManagerMessage] = self.ctx.system.ref(paths.MANAGER)
        self.ctx.post(Round())

    async def receive(self, message: ErrorDispatchMessage) -> None:
        """Handle one message; see each message's docstring."""
        match message:
            case FailureNoted():
                await self._work()
            case Round():
                await self._work()
                self.ctx.after(INTERVAL, Round())
            case _:
                assert_never(message)

    async def _work(self) -> None:
        try:
            while due := await self._due():
                for execution_id in due:
                    await self._try(execution_id)
        except StoreError as error:
            # The database does not answer: what it holds waits for the next round.
            log.warning("error dispatches postponed", error=str(error))

    async def _due(self) -> list[str]:
        now = self._clock.now()
        return await self._store.read(
            lambda conn: dispatches.list_due(conn, ERROR, now=now, limit=PAGE)
        )

    async def _try(self, execution_id: str) -> None:
        try:
            await self._dispatch(execution_id)
        except StoreError:
            raise
        except Exception as error:  # must not keep the others: tried again later
            log.exception("error dispatch failed", execution_id=execution_id, error=str(error))
            due_at = self._clock.now() + timedelta(seconds=INTERVAL)
            await self._store.write(
                lambda conn: dispatches.postpone(conn, ERROR, execution_id, due_at=due_at)
            )

    async def _dispatch(self, execution_id: str) -> None:
        own, other = self._draft(), self._draft()

        def unit(conn: Connection) -> tuple[str, ...]:
            if not dispatches.finish_once(conn, ERROR, execution_id):
                return ()
            failed = failures.find(conn, execution_id)
            if failed is None:
                return ()
            new = (
                _of_workflow(conn, execution_id, failed, own),
                _of_handler(conn, execution_id, failed, other),
            )
            started = [one for one in new if one is not None]
            for one in started:
                executions.create(conn, one)
            return tuple(one.id for one in started)

        started = await self._store.write(unit)
        if started:
            with suppress(ActorError):  # stored: the reconciler's next round starts them
                self._manager.tell(Start(started))

    def _draft(self) -> Draft:
        return Draft(
            id=self._ids.uuid(),
            thread_id=self._ids.hex(32),
            created_at=self._clock.now(),
            default_limit=self._default_limit,
        )


def _of_workflow(
    conn: Connection, execution_id: str, failed: Failed, draft: Draft
) -> NewExecution | None:
    """Return the run of the failed workflow's own error trigger."""
    workflow = find_workflow_by_id(conn, failed.workflow_id)
    if workflow is None or not workflow.is_active:
        return None
    trigger = first_trigger(list_triggers(conn, workflow.id), ("trigger_error",))
    if trigger is None:
        return None
    return _describe(workflow, trigger.node_id, execution_id, failed, draft)


def _of_handler(
    conn: Connection, execution_id: str, failed: Failed, draft: Draft
) -> NewExecution | None:
    """Return the run of the workflow that the failed one names as its error handler."""
    if failed.error_handler_workflow_id is None:
        return None
    workflow = find_workflow_by_id(conn, failed.error_handler_workflow_id)
    if workflow is None or not workflow.is_active:
        return None
    # It was so when it was named; its owner may have made it private since.
    if workflow.owner_id != failed.workflow_owner_id and not workflow.is_public:
        return None
    trigger = first_trigger(list_triggers(conn, workflow.id), HANDLER_TRIGGERS)
    node_id = None if trigger is None else trigger.node_id
    return _describe(workflow, node_id, execution_id, failed, draft)


def _describe(
    workflow: WorkflowRow,
    trigger_node_id: str | None,
    execution_id: str,
    failed: Failed,
    draft: Draft,
) -> NewExecution:
    payload = error_payload(
        RunFailure(
            execution_id=execution_id,
            workflow_slug=failed.workflow_slug,
            message=failed.message,
            error_code=failed.error_code,
            node_id=failed.node_id,
            node_type=_type_of(failed.snapshot, failed.node_id),
            timestamp=format_instant(failed.completed_at),
        ),
        failed.trigger,
    )
    return NewExecution(
        id=draft.id,
        workflow_id=workflow.id,
        trigger_node_id=trigger_node_id,
        # The user may have been deleted meanwhile.
        user_id=workflow.owner_id if failed.user_id is None else failed.user_id,
        thread_id=draft.thread_id,
        serial=False,
        source="error",
        trigger_payload=payload,
        trigger=error_trigger(payload),
        limit_seconds=workflow.max_execution_seconds or draft.default_limit,
        created_at=draft.created_at,
        user_context=failed.user_context,
    )


def _type_of(snapshot: Any, node_id: str | None) -> str | None:
    nodes = (snapshot or {}).get("nodes", ())
    return next((node["component_type"] for node in nodes if node["node_id"] == node_id), None)

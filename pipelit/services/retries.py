"""Executions that failed or were cancelled, tried again. Contract: executions.md "retry"."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection

from pipelit.actors.chats import ENQUEUE_FAILED, Post
from pipelit.actors.runtime import ActorDied, ActorRef, AskTimeout, MailboxFull
from pipelit.clock import Clock, Ids
from pipelit.engine.graph import Snapshot, build_snapshot
from pipelit.errors import BadRequest, Conflict, NotFound, Unavailable
from pipelit.services.canvas import WORKFLOW_NOT_FOUND
from pipelit.services.executions import ExecutionView, require_visible, show
from pipelit.services.principal import Principal
from pipelit.services.starts import INACTIVE, Started, Starter
from pipelit.store import Store
from pipelit.store.queries import executions
from pipelit.store.queries.edges import list_edges
from pipelit.store.queries.nodes import list_nodes
from pipelit.store.queries.retries import Original, find_original
from pipelit.store.queries.workflows import find_workflow_by_id

NODE_NOT_FOUND = "Node not found."
RETRIABLE = ("failed", "cancelled")
POST_TIMEOUT = 5.0


class Retries:
    """Starts executions that take over the finished part of others."""

    def __init__(
        self,
        store: Store,
        starter: Starter,
        clock: Clock,
        ids: Ids,
        *,
        session: Callable[[str], ActorRef[Any]],
    ) -> None:
        self._store = store
        self._starter = starter
        self._clock = clock
        self._ids = ids
        self._session = session

    async def retry(
        self,
        principal: Principal,
        execution_id: str,
        *,
        from_node: str | None,
        graph: Literal["snapshot", "current"],
    ) -> ExecutionView:
        """Start the execution that retries another one, and return it as it is stored.

        Raises:
            NotFound: the execution, its workflow, `from_node` or the trigger node.
            Conflict: it has not ended, or is completed.
            BadRequest: the workflow is inactive.
            Unavailable: the engine takes no work.
        """

        def query(conn: Connection) -> tuple[executions.Execution, executions.NewExecution]:
            row = require_visible(principal, executions.find(conn, execution_id))
            original = find_original(conn, execution_id)
            assert original is not None  # found in the same transaction
            if row.status not in RETRIABLE:
                raise Conflict(f"Cannot retry execution with status '{row.status}'.")
            workflow = find_workflow_by_id(conn, row.workflow_id)
            if workflow is None:
                raise NotFound(WORKFLOW_NOT_FOUND)
            if not workflow.is_active:
                raise BadRequest(INACTIVE)
            snapshot = None if graph == "current" else _own_graph(original)
            _check_nodes(conn, original, snapshot, from_node)
            return row, self._describe(principal, execution_id, original, snapshot, from_node)

        row, new = await self._store.read(query)
        await self._start(new)
        return msgspec.structs.replace(
            show(row),
            execution_id=new.id,
            status="pending",
            error_message="",
            error_code=None,
            started_at=None,
            completed_at=None,
            total_tokens=0,
            total_cost_usd=0.0,
            llm_calls=0,
            retry_of=execution_id,
        )

    def _describe(
        self,
        principal: Principal,
        execution_id: str,
        original: Original,
        snapshot: Any,
        from_node: str | None,
    ) -> executions.NewExecution:
        return executions.NewExecution(
            id=self._ids.uuid(),
            workflow_id=original.workflow_id,
            trigger_node_id=original.trigger_node_id,
            # The user may have been deleted meanwhile.
            user_id=principal.user_id if original.user_id is None else original.user_id,
            thread_id=original.thread_id,
            serial=original.serial,
            source=original.source,
            trigger_payload=original.trigger_payload,
            trigger=original.trigger,
            limit_seconds=original.limit_seconds,
            created_at=self._clock.now(),
            user_context=original.user_context,
            retry_of=execution_id,
            retry_from=from_node,
            snapshot=snapshot,
        )

    async def _start(self, new: executions.NewExecution) -> None:
        """Have it run; one of a chat session waits for its turn there."""
        if not new.serial:
            await self._starter.start(new, Started({}), None)
            return
        try:
            await self._session(new.thread_id).ask(Post(new, None), timeout=POST_TIMEOUT)
        except (MailboxFull, ActorDied, AskTimeout) as error:
            raise Unavailable(ENQUEUE_FAILED) from error


def _own_graph(original: Original) -> Any:
    """Return the graph an execution ran with; None if it never ran a node, for want of a valid one.

    Its stored form: that of the new execution.
    """
    return None if original.error_code == "ValidationError" else original.snapshot


def _check_nodes(
    conn: Connection, original: Original, snapshot: Any, from_node: str | None
) -> None:
    """Check that the graph has what is asked for.

    Raises:
        NotFound: the trigger node, or `from_node`, is not in its scope.
    """
    trigger = original.trigger_node_id
    if snapshot is not None:
        scope = msgspec.convert(snapshot, Snapshot)
    else:
        nodes = list_nodes(conn, original.workflow_id)
        if trigger is not None and trigger not in {node.node_id for node in nodes}:
            raise NotFound(NODE_NOT_FOUND)
        scope = build_snapshot(nodes, list_edges(conn, original.workflow_id), trigger)
    if from_node is not None and from_node not in {*scope.walked, trigger}:
        raise NotFound(NODE_NOT_FOUND)

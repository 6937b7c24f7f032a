"""How an execution is started, whoever asks: its trigger, its row, the Idempotency-Key.

Contract: engine.md §5.2, §5.4, §5.5, README.md §3 "Idempotency-Key", §9.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.actors.manager_messages import ManagerMessage, Start
from pipelit.actors.runtime import ActorError, ActorRef
from pipelit.clock import Clock, Ids
from pipelit.errors import Conflict, NotFound, TooLarge, Unavailable
from pipelit.services.canvas import WORKFLOW_NOT_FOUND
from pipelit.services.principal import Principal
from pipelit.services.visibility import can_run_workflow
from pipelit.store import Store
from pipelit.store.queries import executions as queries
from pipelit.store.queries.nodes import NodeRow, list_nodes
from pipelit.store.queries.workflows import WorkflowRow, find_workflow

ENQUEUE_FAILED = "Failed to enqueue workflow execution."
KEY_REUSED = "Idempotency-Key was already used with a different request."
INACTIVE = "Workflow is inactive."
MAX_PAYLOAD = 1_048_576
"""Bytes of JSON that a trigger takes."""


class NoWorkTaken(Unavailable):
    """The engine takes no work; nothing was stored."""

    def __init__(self) -> None:
        super().__init__(ENQUEUE_FAILED)


class Started(msgspec.Struct, frozen=True):
    """The answer to a start. `replayed`: it was given before, and nothing was started."""

    body: dict[str, Any]
    status: int = 200
    replayed: bool = False


class RepeatableRequest(msgspec.Struct, frozen=True):
    """A request with an Idempotency-Key: which endpoint, and the body as parsed JSON."""

    key: str
    endpoint: str
    body: Any

    @property
    def fingerprint(self) -> str:
        """The same for the same request, whatever the order of its keys."""
        # Escaped: a body may hold half of a surrogate pair, which is no UTF-8.
        said = json.dumps([self.endpoint, self.body], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(said.encode()).hexdigest()


class Target(msgspec.Struct, frozen=True):
    """A workflow that may be started, its triggers of one type, and an earlier answer, if any."""

    workflow: WorkflowRow
    triggers: tuple[NodeRow, ...]
    replay: Started | None


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger that fired. `thread_id` None: the run gets a thread of its own."""

    workflow: WorkflowRow
    trigger_node: NodeRow
    user_id: int
    source: str
    payload: dict[str, Any]
    """What the trigger received."""
    trigger: dict[str, Any]
    """The same, normalised."""
    thread_id: str | None = None
    serial: bool = False
    user_context: dict[str, Any] | None = None


Adjust = Callable[[Connection, queries.NewExecution], queries.NewExecution]
"""Completes an execution inside the transaction that stores it; as re-runnable as any unit."""


class Starter:
    """Turns triggers that fired into stored executions, and has them run."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        *,
        manager: ActorRef[ManagerMessage],
        default_limit: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._manager = manager
        self._default_limit = default_limit

    def now(self) -> datetime:
        """Return the present instant."""
        return self._clock.now()

    def describe(self, fired: Fired) -> queries.NewExecution:
        """Return the execution that a trigger starts, not yet stored.

        Raises:
            TooLarge: the payload is.
        """
        if len(msgspec.json.encode(fired.payload)) > MAX_PAYLOAD:
            raise TooLarge
        return queries.NewExecution(
            id=self._ids.uuid(),
            workflow_id=fired.workflow.id,
            trigger_node_id=fired.trigger_node.node_id,
            user_id=fired.user_id,
            thread_id=fired.thread_id or self._ids.hex(32),
            serial=fired.serial,
            source=fired.source,
            trigger_payload=fired.payload,
            trigger=fired.trigger,
            limit_seconds=fired.workflow.max_execution_seconds or self._default_limit,
            created_at=self._clock.now(),
            user_context=fired.user_context,
        )

    async def start(
        self,
        new: queries.NewExecution,
        answer: Started,
        request: RepeatableRequest | None,
        *,
        adjust: Adjust | None = None,
    ) -> Started:
        """Store *new* with the *answer* its request gets, and have it run.

        Returns:
            *answer*, or the first one when this request was made before.

        Raises:
            Conflict: the Idempotency-Key belongs to another request.
            NoWorkTaken: the engine does not run.
        """
        if not self._manager.is_alive():
            raise NoWorkTaken

        def unit(conn: Connection) -> queries.Replay | None:
            complete = new if adjust is None else adjust(conn, new)
            return queries.create(conn, complete, idempotency=idempotency(request, answer))

        try:
            replay = await self._store.write(unit, key=new.thread_id)
        except queries.KeyReused as error:
            raise Conflict(KEY_REUSED) from error
        if replay is not None:
            return Started(replay.body, replay.status, replayed=True)
        with suppress(ActorError):  # stored is accepted: the reconciler's next round starts it
            self._manager.tell(Start((new.id,)))
        return answer


def find_target(
    conn: Connection,
    principal: Principal,
    slug: str,
    trigger_type: str,
    request: RepeatableRequest | None,
    *,
    now: datetime,
    missing: str = WORKFLOW_NOT_FOUND,
) -> Target:
    """Read what a start needs. `missing` is said when there is no such workflow to be seen.

    Raises:
        NotFound: no such workflow, or not visible.
        Conflict: the Idempotency-Key belongs to another request.
    """
    workflow = find_workflow(conn, slug)
    if workflow is None or not can_run_workflow(principal, workflow.owner_id, workflow.is_public):
        raise NotFound(missing)
    replay = find_replay(conn, principal.user_id, workflow.id, request, now=now)
    triggers = tuple(n for n in list_nodes(conn, workflow.id) if n.component_type == trigger_type)
    return Target(workflow, triggers, replay)


def find_replay(
    conn: Connection,
    user_id: int,
    workflow_id: int,
    request: RepeatableRequest | None,
    *,
    now: datetime,
) -> Started | None:
    """Return the first answer to *request*, if it was made before.

    Raises:
        Conflict: its Idempotency-Key belongs to another request.
    """
    if request is None:
        return None
    stored = queries.find_key(conn, user_id, workflow_id, request.key, now=now)
    if stored is None:
        return None
    if stored.fingerprint != request.fingerprint:
        raise Conflict(KEY_REUSED)
    return Started(stored.body, stored.status, replayed=True)


def choose_trigger(triggers: Sequence[NodeRow], node_id: str | None) -> NodeRow | None:
    """Return the named trigger, or the active one with the highest priority, then lowest id."""
    active = [node for node in triggers if node.config.get("is_active", True)]
    if node_id is not None:
        return next((node for node in active if node.node_id == node_id), None)
    ranked = sorted(active, key=lambda node: (-node.config.get("priority", 0), node.id))
    return ranked[0] if ranked else None


def idempotency(request: RepeatableRequest | None, answer: Started) -> queries.Idempotency | None:
    """Return what to store so that a repetition of *request* gets the same *answer*."""
    if request is None:
        return None
    return queries.Idempotency(
        key=request.key, fingerprint=request.fingerprint, status=answer.status, body=answer.body
    )

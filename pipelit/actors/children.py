"""The child executions of one execution: started once, waited for, cancelled with it.

A child is found again by its key, so whoever takes the parent up waits for the same one: after a
crash at any moment there is one child, and its result is used once. Waiting holds a task that
sleeps, nothing else. Contract: engine.md §15.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec
import trio
from sqlalchemy import Connection

from pipelit.actors import paths, roll_up
from pipelit.actors.attempt_ports import Asker, Tell
from pipelit.actors.child_targets import Caller, Target, check_depth, find_target
from pipelit.actors.execution_parts import ExecutionParts
from pipelit.actors.ledger import Ledger
from pipelit.actors.manager_messages import CancelExecution, StartChildren
from pipelit.actors.run_clock import RunClock
from pipelit.actors.runtime import ActorError, System
from pipelit.actors.switches import CANCELLED
from pipelit.engine.descendants import Descendants
from pipelit.engine.outcome import Usage
from pipelit.engine.trigger import workflow_trigger
from pipelit.errors import Unavailable
from pipelit.nodes.base import config_error
from pipelit.nodes.children import ChildBatch, ChildCall, ChildEnd
from pipelit.store.queries import children as queries
from pipelit.store.queries import journal as rows
from pipelit.store.queries.children import ChildRow, Kin, NewChild
from pipelit.store.queries.executions import TERMINAL, NewExecution

MAX_KEY = 300
MAX_ERROR = 500
FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
"""Seconds between looks at a child that no actor runs here: it waits for an answer, for its start,
or runs on another server."""


class Children:
    """Owned by one execution; shared with its node tasks."""

    def __init__(
        self,
        system: System,
        parts: ExecutionParts,
        loaded: rows.Loaded,
        kin: Kin | None,
        *,
        ledger: Ledger,
        clock: RunClock,
        some: bool,
    ) -> None:
        """`some`: it has started children before."""
        self._manager = system.ref(paths.MANAGER)
        self._system = system
        self._parts = parts
        self._loaded = loaded
        self._kin = kin
        self._ledger = ledger
        self._clock = clock
        self.some = some

    async def run(
        self, asker: Asker, batch: ChildBatch, tell: Tell, note: Callable[[Sequence[str]], None]
    ) -> tuple[ChildEnd, ...]:
        """Start the children of *batch*, unless they are there, and wait until all have ended.

        Args:
            asker: whose children they are.
            batch: what to run.
            tell: makes the events that go with their start.
            note: told their ids once they are stored.

        Raises:
            NodeError: `ConfigError`; one of them may not run, so none is started.
        """
        places = range(len(batch.calls)) if len(batch.calls) > 1 else (None,)
        keys = [child_key(batch.key, place) for place in places]
        found = await self._find(keys)
        # Started together, yet some may have been deleted since.
        missing = {k: c for k, c in zip(keys, batch.calls, strict=True) if k not in found}
        if missing:
            await self._start(asker, missing, tell, spawned=batch.spawned)
            found = await self._find(keys)
        children = [found[key] for key in keys]
        note([child.id for child in children])
        self._have_run(child.id for child in children if child.status == "pending")
        ends: dict[str, ChildEnd] = {}

        async def wait(child: ChildRow) -> None:
            ends[child.id] = await self._end_of(child, batch.timeout)

        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(wait, child)
        return tuple(ends[child.id] for child in children)

    async def descendants(self) -> Descendants:
        """Count the descendants so far, and what they have used."""
        found = await self._parts.store.read(
            lambda conn: queries.sum_descendants(conn, self._loaded.id), patient=True
        )
        used = msgspec.structs.asdict(found)
        return Descendants(used.pop("count"), Usage(**used))

    async def cancel(self) -> None:
        """Cancel all that have not ended, and wait until they have."""
        while live := await self._parts.store.read(
            lambda conn: queries.live_children(conn, self._loaded.id), patient=True
        ):
            async with trio.open_nursery() as nursery:
                for child_id in live:
                    nursery.start_soon(self._cancel, child_id)

    async def _find(self, keys: Sequence[str]) -> dict[str, ChildRow]:
        return await self._parts.store.read(
            lambda conn: queries.find_children(conn, keys), patient=True
        )

    async def _start(
        self, asker: Asker, calls: Mapping[str, ChildCall], tell: Tell, *, spawned: bool
    ) -> None:
        """Store children by their keys, together with the news that the node waits for them."""
        caller = self._caller()
        check_depth(caller, spawned=spawned)

        def query(conn: Connection) -> list[Target]:
            return [find_target(conn, caller, c, spawned=spawned) for c in calls.values()]

        targets = await self._parts.store.read(query, patient=True)
        new = [
            NewChild(execution=self._describe(asker, call, target, key), task_id=call.task_id)
            for (key, call), target in zip(calls.items(), targets, strict=True)
        ]
        events = tell(tuple(child.execution.id for child in new))
        stamp = self._clock.stamp()
        step = rows.Step(
            execution_id=self._loaded.id,
            owner=self._parts.owner,
            now=stamp.now,
            active_us=stamp.active_us,
            events=tuple(rows.EventDraft(event.type, event.data) for event in events),
        )
        self.some = True
        try:
            await self._ledger.write(step, children=new)
        except queries.TooManyDescendants as refused:
            raise config_error(
                f"Too many running child executions (limit {queries.MAX_LIVE_DESCENDANTS})"
            ) from refused
        if any(child.task_id is not None for child in new):
            roll_up.wake(self._system)

    def _caller(self) -> Caller:
        return Caller(
            workflow_id=self._loaded.workflow_id,
            workflow_slug=self._loaded.workflow_slug,
            owner_id=self._loaded.workflow_owner_id,
            trigger_node_id=self._loaded.trigger_node_id,
            depth=0 if self._kin is None else self._kin.depth,
        )

    def _describe(self, asker: Asker, call: ChildCall, target: Target, key: str) -> NewExecution:
        loaded, parts, kin = self._loaded, self._parts, self._kin
        own_limit = target.workflow.max_execution_seconds or parts.default_limit
        trigger = workflow_trigger(
            call.payload, source_workflow=loaded.workflow_slug, parent_execution_id=loaded.id
        )
        return NewExecution(
            id=parts.ids.uuid(),
            workflow_id=target.workflow.id,
            trigger_node_id=target.trigger_node_id,
            # The user may have been deleted meanwhile.
            user_id=loaded.workflow_owner_id if loaded.user_id is None else loaded.user_id,
            thread_id=parts.ids.hex(32),
            serial=False,
            source="workflow",
            trigger_payload=call.payload,
            trigger=trigger,
            # A second more than the parent has: its own limit is what ends both.
            limit_seconds=max(1, min(own_limit, 1 + math.floor(self._clock.remaining()))),
            created_at=parts.clock.now(),
            user_context=asker.user_context or None,
            parent_execution_id=loaded.id,
            parent_node_id=asker.node_id,
            root_execution_id=loaded.id if kin is None else kin.root_execution_id,
            depth=1 if kin is None else kin.depth + 1,
            dedupe_key=key,
        )

    def _have_run(self, child_ids: Iterable[str]) -> None:
        with suppress(ActorError):  # asked again while they are waited for
            self._manager.tell(StartChildren(self._loaded.id, tuple(child_ids)))

    async def _end_of(self, child: ChildRow, timeout: float | None) -> ChildEnd:
        until = None if timeout is None else child.created_at + timedelta(seconds=timeout)
        left = math.inf if until is None else (until - self._parts.clock.now()).total_seconds()
        with trio.move_on_after(max(0.0, left)):
            return describe_end(child.id, await self._ended(child.id), until)
        await self._cancel(child.id)
        return describe_end(child.id, await self._ended(child.id), until, timed_out=True)

    async def _ended(self, child_id: str) -> ChildRow | None:
        """Wait until a child has ended; None if it was deleted."""
        actor = self._system.ref(paths.execution(child_id))
        pause = FIRST_PAUSE
        while True:
            if actor.is_alive():
                pause = FIRST_PAUSE
                await actor.wait_stopped()
            row = await self._parts.store.read(
                lambda conn: queries.find_child(conn, child_id), patient=True
            )
            if row is None or row.status in TERMINAL:
                return row
            if row.status == "pending":
                self._have_run([child_id])
            await trio.sleep(pause)
            pause = min(LAST_PAUSE, 2 * pause)

    async def _cancel(self, child_id: str) -> None:
        """Cancel a child; the manager may restart, or need long, meanwhile.

        When the server stops, the manager goes first: then the child's nodes are stopped from
        here, and the child ends by itself.
        """
        while True:
            with suppress(ActorError, Unavailable):
                await self._manager.ask(CancelExecution(child_id), timeout=math.inf)
                return
            self._parts.switches.stop(child_id, CANCELLED)
            row = await self._parts.store.read(
                lambda conn: queries.find_child(conn, child_id), patient=True
            )
            if row is None or row.status in TERMINAL:
                return
            await trio.sleep(LAST_PAUSE)


def child_key(key: str, place: int | None) -> str:
    """Return the unique key of a child. `place`: which of several asked for together."""
    text = key if place is None else f"{key}:{place}"
    if len(text) <= MAX_KEY:
        return text
    return hashlib.sha256(text.encode()).hexdigest()


def describe_end(
    child_id: str, row: ChildRow | None, until: datetime | None, *, timed_out: bool = False
) -> ChildEnd:
    """Return how a child ended. Contract: engine.md §15.5, §15.6.

    Args:
        row: the child; None if it was deleted, which cancels it.
        until: when its time was over.
        timed_out: it was cancelled for that.
    """
    if row is not None and row.status == "completed":
        return ChildEnd(execution_id=child_id, final_output=row.final_output)
    if row is not None and row.status == "failed":
        error = f"Child execution failed: {row.error_message[:MAX_ERROR]}"
    elif timed_out or _ended_after(row, until):
        error = "Child execution timed out"
    else:
        error = "Child execution was cancelled"
    return ChildEnd(execution_id=child_id, error=error)


def _ended_after(row: ChildRow | None, until: datetime | None) -> bool:
    """Tell whether a child ended when its time was over: whoever cancelled it may have crashed."""
    if row is None or until is None or row.completed_at is None:
        return False
    return row.completed_at >= until

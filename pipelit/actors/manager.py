"""Who runs: slots, starts, cancels, and the exits of executions.

It starts every execution's actor and watches it; a crashed one is taken up again from its journal,
and given up as failed after three recoveries in a row. It waits for nothing in its turns: what
waits is an own task. Contract: engine.md §7.2, §10.3, §11.3.
"""

import math
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from typing import Any, assert_never

import trio
from sqlalchemy import Connection

from pipelit.actors import after_end, paths
from pipelit.actors.execution import Execution
from pipelit.actors.execution_messages import Cancel
from pipelit.actors.execution_messages import TakeAnswers as TakeThem
from pipelit.actors.execution_parts import ExecutionParts
from pipelit.actors.hub import Announcement, Audience, Publisher
from pipelit.actors.manager_messages import (
    Adopted,
    AnswersTaken,
    CancelExecution,
    Exited,
    GiveUp,
    Join,
    ManagerMessage,
    Released,
    Run,
    Start,
    StartChildren,
    TakeAnswers,
    TakeUp,
)
from pipelit.actors.recovery import only_waits
from pipelit.actors.runtime import (
    Actor,
    ActorDied,
    ActorRef,
    ChildSpec,
    Exit,
    ExitReason,
    MailboxFull,
    Reply,
    Restart,
    get_origin,
)
from pipelit.actors.switches import CANCELLED
from pipelit.engine.changes import Ending
from pipelit.errors import Unavailable
from pipelit.store.queries import children, journal, ownership
from pipelit.store.queries import executions as executions_queries
from pipelit.store.queries.standing import Standing, find_standing

MAX_RECOVERIES = 3
ELSEWHERE_PAUSE = 1.0
"""Seconds between looks at an execution that another server runs."""
CANCEL_TIMEOUT = 30.0
CANCEL_PAUSE = 0.1

POISON = Ending(
    status="failed",
    error_message="Execution recovered as failed: exceeded 3 recovery attempts",
    error_code="PoisonExecution",
)


class Manager(Actor[ManagerMessage]):
    """One per server."""

    def __init__(self, parts: ExecutionParts, *, max_running: int, grace: float) -> None:
        self._parts = parts
        self._max_running = max_running
        self._grace = grace
        self._queue: OrderedDict[str, None] = OrderedDict()
        self._active: dict[str, ActorRef[Any]] = {}
        self._parents: dict[str, str] = {}  # {active child: its parent}: these take no slot
        self._waiting: dict[str, list[Reply[None]]] = {}
        self._answering: dict[str, list[Reply[None]]] = {}  # who answered, until it is taken

    async def on_start(self) -> None:
        """Watch the executions that outlived an earlier incarnation."""
        self._publisher = Publisher(self.ctx.system.ref(paths.HUB))
        room = self.ctx.system.snapshot(paths.EXECUTIONS)
        for info in room.children if room is not None else ():
            parent_id = info.detail.get("parent_execution_id")
            self._watch(info.path.rpartition("/")[2], None if parent_id is None else str(parent_id))

    async def receive(self, message: ManagerMessage) -> None:
        """Handle one message; see each message's docstring."""
        match message:
            case Start(execution_ids=ids):
                self._enqueue(*ids)
            case StartChildren(parent_id=parent_id, execution_ids=ids):
                for execution_id in ids:
                    self._launch(execution_id, parent_id=parent_id)
            case Run(execution_id=execution_id):
                self._wait_for(execution_id, self.defer(message))
                self._enqueue(execution_id)
            case Join(execution_id=execution_id):
                self._wait_for(execution_id, self.defer(message))
                self.ctx.start_soon(self._look, execution_id)
            case TakeUp(execution_id=execution_id, crashed=crashed):
                if execution_id not in self._active:
                    self.ctx.start_soon(self._take_up, execution_id, crashed)
            case GiveUp(execution_id=execution_id, ending=ending):
                if execution_id not in self._active:
                    self.ctx.start_soon(self._adopt_to_end, execution_id, ending)
            case CancelExecution(execution_id=execution_id):
                self._queue.pop(execution_id, None)
                self._parts.switches.stop(execution_id, CANCELLED)
                self.ctx.start_soon(self._cancel, execution_id, self.defer(message))
            case TakeAnswers(execution_id=execution_id):
                self._take_answers(execution_id, self.defer(message))
            case AnswersTaken(execution_id=execution_id):
                self._thank(execution_id)
            case Exited(execution_id=execution_id, exit=ended):
                self._exited(execution_id, ended)
            case Adopted(execution_id=execution_id, verdict=verdict, parent_id=parent_id):
                self._launch(execution_id, verdict, parent_id=parent_id)
                if execution_id in self._answering:
                    self.ctx.start_soon(self._pass_on, execution_id)
            case Released(execution_id=execution_id):
                self._release(execution_id)
            case _:
                assert_never(message)

    def _enqueue(self, *execution_ids: str) -> None:
        for execution_id in execution_ids:
            if execution_id not in self._active:
                self._queue.setdefault(execution_id)
        self._fill()

    def _fill(self) -> None:
        while self._queue and len(self._active) - len(self._parents) < self._max_running:
            execution_id, _ = self._queue.popitem(last=False)
            self._launch(execution_id)

    def _launch(
        self, execution_id: str, verdict: Ending | None = None, *, parent_id: str | None = None
    ) -> None:
        if execution_id in self._active or self.ctx.is_stopping:
            return
        self._queue.pop(execution_id, None)
        self.ctx.system.start_child(
            paths.EXECUTIONS,
            ChildSpec(
                id=execution_id,
                kind="execution",
                start=partial(Execution, execution_id, self._parts, verdict=verdict),
                restart=Restart.TEMPORARY,
                grace=self._grace,
                detail={**get_origin(), "execution_id": execution_id}
                | ({} if parent_id is None else {"parent_execution_id": parent_id}),
            ),
        )
        self._watch(execution_id, parent_id)

    def _watch(self, execution_id: str, parent_id: str | None) -> None:
        ref = self.ctx.system.ref(paths.execution(execution_id))
        self._active[execution_id] = ref
        if parent_id is not None:
            self._parents[execution_id] = parent_id
        self.ctx.watch(ref, partial(Exited, execution_id))

    def _exited(self, execution_id: str, ended: Exit) -> None:
        self._active.pop(execution_id, None)
        self._parents.pop(execution_id, None)
        crashed = ended.reason is ExitReason.CRASHED
        if crashed or execution_id in self._answering:
            self.ctx.start_soon(self._adopt, execution_id, crashed)
        elif execution_id in self._waiting and self._parts.store.is_shared:
            self.ctx.start_soon(self._outlast, execution_id)
        else:
            self._release(execution_id)
        self._fill()

    def _wait_for(self, execution_id: str, reply: Reply[None]) -> None:
        self._waiting.setdefault(execution_id, []).append(reply)

    def _release(self, execution_id: str) -> None:
        for reply in self._waiting.pop(execution_id, ()):
            reply.send(None)
        self._thank(execution_id)

    def _take_answers(self, execution_id: str, reply: Reply[None]) -> None:
        """Tell the actor, or have a new one: an answered execution waits for no slot."""
        self._answering.setdefault(execution_id, []).append(reply)
        if execution_id in self._active:
            self.ctx.start_soon(self._pass_on, execution_id)
        else:
            self.ctx.start_soon(self._adopt, execution_id, False)

    def _thank(self, execution_id: str) -> None:
        for reply in self._answering.pop(execution_id, ()):
            reply.send(None)

    # Own tasks: they wait, and post what follows.

    async def _pass_on(self, execution_id: str) -> None:
        """Let the live actor take the answers; its exit says what follows if it cannot."""
        ref = self.ctx.system.ref(paths.execution(execution_id))
        with suppress(ActorDied, MailboxFull):  # a full mailbox: it looks by itself every second
            await ref.ask(TakeThem(), timeout=math.inf)
        if ref.is_alive():
            self.ctx.post(AnswersTaken(execution_id))

    async def _look(self, execution_id: str) -> None:
        if await self._status(execution_id) == "pending":
            self.ctx.post(Start((execution_id,)))
        else:
            await self._outlast(execution_id)

    async def _outlast(self, execution_id: str) -> None:
        """Wait as long as an execution runs elsewhere; taken up here, its exit is the answer."""
        actor = self.ctx.system.ref(paths.execution(execution_id))
        while await self._status(execution_id) == "running":
            if actor.is_alive():
                return
            await trio.sleep(ELSEWHERE_PAUSE)
        self.ctx.post(Released(execution_id))

    async def _status(self, execution_id: str) -> str | None:
        found = await self._parts.store.read(
            lambda conn: executions_queries.find(conn, execution_id), patient=True
        )
        return None if found is None else found.status

    async def _take_up(self, execution_id: str, crashed: bool) -> None:
        """Adopt what another server left behind; who only waited did not crash it."""
        loaded, live = await self._parts.store.read(
            lambda conn: (
                journal.load(conn, execution_id),
                children.live_children(conn, execution_id),
            ),
            patient=True,
        )
        waited = loaded is not None and only_waits(loaded, live.values())
        await self._adopt(execution_id, crashed and not waited)

    async def _adopt(self, execution_id: str, crashed: bool) -> None:
        before, count = await self._own(execution_id, crashed=crashed)
        if before is None or count is None:
            self.ctx.post(Released(execution_id))
        elif count > MAX_RECOVERIES + 1:  # not even its end could be brought up
            await self._cancel_children(execution_id)
            await self._end_directly(execution_id, POISON, unstarted=False)
            self.ctx.post(Released(execution_id))
        else:
            self.ctx.emit(
                "recovered",
                execution_id=execution_id,
                from_status=before.status,
                recovery_count=count,
                previous_owner=before.owner,
            )
            verdict = POISON if count > MAX_RECOVERIES else None
            self.ctx.post(Adopted(execution_id, verdict, before.parent_execution_id))

    async def _adopt_to_end(self, execution_id: str, ending: Ending) -> None:
        before, count = await self._own(execution_id, crashed=False, to_end=True)
        if before is None or count is None:
            self.ctx.post(Released(execution_id))
        else:
            self.ctx.post(Adopted(execution_id, ending, before.parent_execution_id))

    async def _own(
        self, execution_id: str, *, crashed: bool, to_end: bool = False
    ) -> tuple[Standing | None, int | None]:
        """Make an execution ours; return how it stood before, and its recoveries so far."""

        def unit(conn: Connection) -> tuple[Standing | None, int | None]:
            before = find_standing(conn, execution_id)
            owner = self._parts.owner
            count = ownership.adopt(conn, execution_id, owner, crashed=crashed, to_end=to_end)
            return before, count

        return await self._parts.store.write(unit, key=execution_id, patient=True)

    async def _cancel(self, execution_id: str, reply: Reply[None]) -> None:
        """Cancel, however often the execution changes hands meanwhile."""
        with trio.move_on_after(CANCEL_TIMEOUT):
            while not await self._cancel_once(execution_id):
                pass
            self.ctx.post(Released(execution_id))
            reply.send(None)
            return
        reply.fail(Unavailable("The execution could not be stopped in time.", retry_after=1))

    async def _cancel_once(self, execution_id: str) -> bool:
        """Cancel through the live actor, or end what has none. Returns whether it has ended."""
        ref = self.ctx.system.ref(paths.execution(execution_id))
        try:
            await ref.ask(Cancel(), timeout=math.inf)
        except ActorDied:
            pass  # not live: pending, ended or crashed meanwhile, or an orphan that nobody runs
        except MailboxFull:
            await trio.sleep(CANCEL_PAUSE)
            return False
        found = await self._parts.store.read(
            lambda conn: executions_queries.find(conn, execution_id), patient=True
        )
        match found.status if found is not None else "completed":
            case "pending":
                await self._end_directly(execution_id, CANCELLED, unstarted=True)
                return False
            case "running" | "interrupted":
                await self._adopt_to_end(execution_id, CANCELLED)
                return False
            case _:
                return True

    async def _cancel_children(self, execution_id: str) -> None:
        """Cancel the children of an execution that has no actor to do it."""
        while live := await self._parts.store.read(
            lambda conn: children.live_children(conn, execution_id), patient=True
        ):
            for child_id in live:
                await self._cancel_once(child_id)

    async def _end_directly(self, execution_id: str, ending: Ending, *, unstarted: bool) -> None:
        now = self._parts.clock.now()
        data: dict[str, Any] = {"execution_id": execution_id}
        if ending.status == "failed":
            data |= {"error": ending.error_message, "error_code": ending.error_code}
        end = journal.End(
            status=ending.status,
            error_message=ending.error_message,
            error_code=ending.error_code,
        )
        event = journal.EventDraft(f"execution_{ending.status}", data)

        def unit(conn: Connection) -> tuple[Any, Any]:
            stored = journal.end_directly(
                conn, execution_id, end, event, now=now, unstarted=unstarted
            )
            return stored, executions_queries.find(conn, execution_id)

        stored, found = await self._parts.store.write(unit, key=execution_id, patient=True)
        if stored is not None:
            audience = Audience(
                found.workflow_id, found.workflow_slug, found.workflow_owner_id, found.user_id
            )
            self._publisher.announce(
                Announcement(
                    execution_id,
                    audience,
                    stored.type,
                    stored.data,
                    seq=stored.seq,
                    timestamp=stored.timestamp,
                )
            )
            after_end.wake(self.ctx.system, failed=ending.status == "failed")

"""One execution: one actor, one cancel scope, one journal.

It loads the run, folds its journal (empty for a new one, longer for a recovered one: the same
path), runs what is ready as own tasks, and turns each outcome into one committed step. It alone
decides what runs next. Contract: engine.md §7, §8, §11; design: docs/actors.md.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias, assert_never

import msgspec
import trio

from pipelit.actors import delivery, paths, roll_up
from pipelit.actors.hub import Audience, Publisher
from pipelit.actors.ledger import Ledger
from pipelit.actors.node_task import AttemptTask, NodeRunner, stopped_by
from pipelit.actors.plans import Plans
from pipelit.actors.runtime import Actor, Message, Reply, Request
from pipelit.actors.step_rows import Stamp, StepRows
from pipelit.clock import Clock, Ids
from pipelit.engine.graph import Plan, Snapshot
from pipelit.engine.journal import RunState, parse_record
from pipelit.engine.limits import SizeLimits, oversize
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Failure, Outcome
from pipelit.engine.retry import retry_delay
from pipelit.engine.routing import has_error_edge
from pipelit.engine.steps import Attempt, Changes, Ending, Narrator
from pipelit.store import Store
from pipelit.store.queries import journal as rows

STOP_DEADLINE = 2.0
"""Seconds that nodes get to end after the execution has: then they are written off."""


class Cancel(Request[None], frozen=True):
    """End the execution as cancelled. Replies once it is written and all its nodes are gone."""


class AttemptEnded(Message, frozen=True):
    """A node's task ended. `result` is None when it was cut off."""

    node_id: str
    result: Outcome | Failure | None


class Due(Message, frozen=True):
    """A retry's time `at` (Unix seconds) has come, whatever the wall clock has done meanwhile."""

    at: float


class Waited(Message, frozen=True):
    """A timed wait is over."""

    node_id: str


class LimitReached(Message, frozen=True):
    """The execution has used its time."""


class WriteOff(Message, frozen=True):
    """Nodes that were told to stop had their time."""


ExecutionMessage: TypeAlias = Cancel | AttemptEnded | Due | Waited | LimitReached | WriteOff


@dataclass(frozen=True, kw_only=True)
class ExecutionParts:
    """What every execution actor is built from."""

    store: Store
    owner: rows.Owner
    clock: Clock
    ids: Ids
    plans: Plans
    runner: NodeRunner
    max_parallel: int
    max_messages: int
    size_limits: SizeLimits


class Execution(Actor[ExecutionMessage]):
    """Owned by the manager, which starts it, cancels it and watches it."""

    def __init__(
        self, execution_id: str, parts: ExecutionParts, *, verdict: Ending | None = None
    ) -> None:
        """`verdict`: how the run ends as soon as it is loaded, instead of going on."""
        self._id = execution_id
        self._parts = parts
        self._verdict = verdict
        self._running: dict[str, AttemptTask] = {}
        self._ending: Ending | None = None
        # {node: its attempt and failure}, of nodes that ended with or before the execution
        self._stopped: dict[str, tuple[Attempt, Failure]] = {}
        self._cancels: list[Reply[None]] = []
        self._draining = False
        self._over = False
        self._position = 0
        self._latest = 0.0
        self._recovered: frozenset[str] = frozenset()

    async def on_start(self) -> None:
        """Load the run and go on with it; nothing to do if it has ended meanwhile."""
        loaded = await self._parts.store.read(lambda conn: rows.load(conn, self._id), patient=True)
        if loaded is None:
            self.ctx.stop()
            return
        self._loaded = loaded
        self._resumed_at = trio.current_time()
        audience = Audience(
            loaded.workflow_id, loaded.workflow_slug, loaded.workflow_owner_id, loaded.user_id
        )
        self._ledger = Ledger(
            self._id,
            audience,
            store=self._parts.store,
            announce=Publisher(self.ctx.system.ref(paths.HUB)).announce,
            last_seq=loaded.last_seq,
        )
        if self._verdict is not None:
            self._rebuild()
            await self._end(self._verdict)
        elif loaded.status == "pending":
            await self._begin()
        else:
            await self._resume()
        if not self._over:
            left = loaded.limit_seconds - self._active_seconds()
            self.ctx.after(max(0.0, left), LimitReached())

    async def receive(self, message: ExecutionMessage) -> None:
        """Handle one message; see each message's docstring."""
        match message:
            case AttemptEnded(node_id=node_id, result=result):
                await self._attempt_ended(self._running.pop(node_id), result)
            case Due(at=at):
                self._latest = max(self._latest, at)
                if self._ending is None:
                    await self._commit(self._narrator.start_ready(now=self._now()))
            case Waited(node_id=node_id):
                await self._waited(node_id)
            case LimitReached():
                await self._end(self._timed_out())
            case Cancel():
                self._cancels.append(self.defer(message))
                await self._end(Ending(status="cancelled"))
            case WriteOff():
                await self._finish()
            case _:
                assert_never(message)

    async def on_drain(self) -> None:
        """Start nothing more; stop when the running nodes have ended. The row keeps its status."""
        self._draining = True
        self._narrator.hold()
        self._stop_when_drained()

    async def _begin(self) -> None:
        loaded = self._loaded
        compiled = await self._parts.plans.get(
            loaded.workflow_id, loaded.workflow_version, loaded.trigger_node_id
        )
        self._adopt_plan(compiled.plan)
        changes = self._narrator.begin(
            loaded.trigger,
            self._step_rows.first_message(),
            payload=loaded.trigger_payload,
            problems=compiled.problems,
            now=self._now(),
        )
        self._started_at = self._parts.clock.now()
        await self._commit(changes, begin=rows.Begin(compiled.snapshot))

    def _rebuild(self) -> None:
        self._adopt_plan(Plan(msgspec.convert(self._loaded.snapshot, Snapshot)))
        self._started_at = self._loaded.started_at or self._loaded.created_at
        self._narrator.state.fold(parse_record(record) for record in self._loaded.records)
        self._position = len(self._loaded.records)

    async def _resume(self) -> None:
        self._rebuild()
        state = self._narrator.state
        self._recovered = frozenset(state.started - state.waiting.keys())
        self._launch(tuple(node for node in state.ready if node in self._recovered))
        for node, waiting in state.waiting.items():
            self.ctx.after(max(0.0, waiting.resume_at - self._now()), Waited(node))
        for retry_at in state.retry_at.values():
            self.ctx.after(max(0.0, retry_at - self._now()), Due(retry_at))
        await self._commit(self._narrator.start_ready(now=self._now()))

    def _adopt_plan(self, plan: Plan) -> None:
        state = RunState(plan, max_messages=self._parts.max_messages)
        loaded = self._loaded
        self._narrator = Narrator(
            self._id,
            loaded.workflow_id,
            loaded.workflow_slug,
            state,
            max_parallel=self._parts.max_parallel,
        )
        self._step_rows = StepRows(loaded, self._parts.owner, self._parts.ids)

    def _launch(self, nodes: tuple[str, ...]) -> None:
        state = self._narrator.state
        for node_id in nodes:
            task = self._parts.runner.prepare(
                loaded=self._loaded,
                state=state,
                node_id=node_id,
                ledger=self._ledger,
                started_at=self._started_at,
                remaining=self._loaded.limit_seconds - self._active_seconds(),
                recovered=node_id in self._recovered,
                step_rows=self._step_rows,
                stamp=self._stamp,
            )
            self._running[node_id] = task
            task.scope = self.ctx.start_soon(self._run, task, name=node_id)

    async def _run(self, task: AttemptTask) -> None:
        """Run an attempt as an own task: state is not touched here."""
        result: Outcome | Failure | None = None
        try:
            result = await task.run()
        finally:
            self.ctx.post(AttemptEnded(task.node_id, result))

    async def _attempt_ended(self, task: AttemptTask, result: Outcome | Failure | None) -> None:
        self._recovered -= {task.node_id}
        self._loaded.checkpoints[task.node_id] = task.checkpoint
        if self._ending is not None:
            self._stopped[task.node_id] = (task.attempt(), task.cut_off(self._ending, result))
            if not self._running:
                await self._finish()
            return
        match result:
            case Outcome(delay_seconds=delay) if delay is not None:
                await self._wait(task, result, delay)
            case Outcome():
                await self._succeed(task, result)
            case Failure():
                await self._fail(task, result)
            case None:  # cut off by a drain whose grace ran out: recovered at the next start
                pass
        self._stop_when_drained()

    async def _succeed(self, task: AttemptTask, outcome: Outcome) -> None:
        too_large = oversize(outcome, self._narrator.state, self._parts.size_limits)
        if too_large is not None:
            await self._fail(task, msgspec.structs.replace(too_large, report=outcome.report))
            return
        changes = self._narrator.succeed(
            task.attempt(), outcome, now=self._now(), elapsed_ms=self._elapsed_ms()
        )
        await self._commit(changes, remember=(task.node_id, outcome.remember))

    async def _wait(self, task: AttemptTask, outcome: Outcome, delay: float) -> None:
        changes = self._narrator.wait(
            task.attempt(), outcome, resume_at=self._now() + delay, now=self._now()
        )
        await self._commit(changes)
        self.ctx.after(delay, Waited(task.node_id))

    async def _waited(self, node_id: str) -> None:
        waiting = self._narrator.state.waiting.get(node_id)
        if waiting is None or self._ending is not None or self._draining:
            return
        attempt = Attempt(node_id=node_id, number=waiting.attempt, duration_ms=waiting.duration_ms)
        await self._commit(
            self._narrator.succeed(
                attempt, waiting.outcome, now=self._now(), elapsed_ms=self._elapsed_ms()
            )
        )

    async def _fail(self, task: AttemptTask, failure: Failure) -> None:
        attempt = task.attempt()
        delay = retry_delay(failure, attempt=attempt.number)
        if delay is not None:
            now = self._now()
            await self._commit(self._narrator.retry_later(attempt, failure, delay=delay, now=now))
            self.ctx.after(delay, Due(now + delay))
        elif has_error_edge(self._narrator.state.plan, attempt.node_id):
            await self._commit(
                self._narrator.handle_failure(
                    attempt, failure, now=self._now(), elapsed_ms=self._elapsed_ms()
                )
            )
        else:
            text = f"Node {attempt.node_id} failed: {failure.message}"
            self._stopped[attempt.node_id] = (attempt, failure)
            await self._end(
                Ending(
                    status="failed",
                    error_message=text[:2000],
                    error_code=failure.code,
                    failed_node=attempt.node_id,
                )
            )

    async def _end(self, ending: Ending) -> None:
        """Stop all nodes, then write the end. The first ending wins."""
        if self._ending is not None or self._over:
            return
        self._ending = ending
        for task in self._running.values():
            task.scope.cancel(reason=f"execution {ending.status}")
        if self._running:
            self.ctx.after(STOP_DEADLINE, WriteOff())
        else:
            await self._finish()

    async def _finish(self) -> None:
        if self._ending is None or self._over:
            return
        for node_id, task in self._running.items():
            self._stopped[node_id] = (task.attempt(), task.cut_off(self._ending, None))
        state = self._narrator.state
        for node_id in state.ready:  # those that wait, or were cut off with an earlier server
            if node_id in state.started and node_id not in self._stopped:
                number = state.attempts.get(node_id, 0)
                spent = state.waiting[node_id].duration_ms if node_id in state.waiting else 0
                attempt = Attempt(node_id=node_id, number=number, duration_ms=spent)
                self._stopped[node_id] = (attempt, stopped_by(self._ending))
        changes = self._narrator.end(self._ending, self._stopped, elapsed_ms=self._elapsed_ms())
        await self._commit(changes)

    async def _commit(
        self,
        changes: Changes,
        *,
        begin: rows.Begin | None = None,
        remember: tuple[str, tuple[ChatMessage, ...]] = ("", ()),
    ) -> None:
        """Write a step, publish it, start what it starts, and stop if it was the last."""
        if changes == Changes():
            return
        step = self._step_rows.build(
            changes,
            position=self._position,
            usage=self._narrator.state.usage,
            stamp=self._stamp(),
            begin=begin,
            remember=remember,
        )
        self._position += len(changes.records)
        try:
            await self._ledger.write(step)
        except rows.Fenced:
            self.ctx.emit("fenced", owner=self._parts.owner.node_id, epoch=self._parts.owner.epoch)
            self._over = True
            self.ctx.stop()
            return
        if changes.ending is not None:
            self._over = True
            if step.dispatches:
                delivery.wake(self.ctx.system)
            roll_up.wake(self.ctx.system)
            for waiting in self._cancels:
                waiting.send(None)
            self.ctx.stop()
            return
        self._launch(changes.started)

    def _stop_when_drained(self) -> None:
        if self._draining and not self._running:
            self.ctx.stop()

    def _timed_out(self) -> Ending:
        limit = self._loaded.limit_seconds
        elapsed = round(self._active_seconds())
        return Ending(
            status="failed",
            error_message=f"Execution timed out after {elapsed}s (limit: {limit}s)",
            error_code="ExecutionTimeoutError",
        )

    def _stamp(self) -> Stamp:
        return Stamp(now=self._parts.clock.now(), active_us=int(self._active_seconds() * 1e6))

    def _active_seconds(self) -> float:
        return self._loaded.active_us / 1e6 + trio.current_time() - self._resumed_at

    def _now(self) -> float:
        """Return Unix seconds that never run backwards: what was due stays due."""
        self._latest = max(self._latest, self._parts.clock.now().timestamp())
        return self._latest

    def _elapsed_ms(self) -> int:
        return (self._parts.clock.now() - self._started_at) // timedelta(milliseconds=1)

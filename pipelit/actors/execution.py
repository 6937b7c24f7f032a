"""One execution: one actor, one cancel scope, one journal.

It loads the run, folds its journal (empty for a new one, longer for a recovered one: the same
path), runs what is ready as own tasks, and turns each outcome into one committed step. It alone
decides what runs next. Contract: engine.md §7, §8, §11; design: docs/actors.md.
"""

from typing import assert_never

import msgspec
import trio
from sqlalchemy import Connection

from pipelit.actors import after_end
from pipelit.actors.beginning import find_beginning
from pipelit.actors.child_waits import ChildWaits
from pipelit.actors.children import Children
from pipelit.actors.execution_messages import (
    AnswersDue,
    AttemptEnded,
    Cancel,
    Counted,
    Due,
    ExecutionMessage,
    Resumed,
    Suspended,
    SwitchedOff,
    TakeAnswers,
    Waited,
    Worded,
    WriteOff,
)
from pipelit.actors.execution_parts import ExecutionParts
from pipelit.actors.ledger import open_ledger
from pipelit.actors.node_task import AttemptTask
from pipelit.actors.questions import Questions, announce, rejoin
from pipelit.actors.run_clock import RunClock
from pipelit.actors.runtime import Actor, Reply
from pipelit.actors.step_rows import StepRows
from pipelit.actors.switches import CANCELLED
from pipelit.engine import endings
from pipelit.engine.changes import Attempt, Changes, Ending, Failed
from pipelit.engine.graph import Plan, Snapshot
from pipelit.engine.limits import oversize
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Failure, Outcome
from pipelit.engine.questions import is_confirmation
from pipelit.engine.records import Asked, parse_record
from pipelit.engine.retry import retry_delay
from pipelit.engine.routing import is_handled
from pipelit.store.queries import children
from pipelit.store.queries import journal as rows
from pipelit.store.queries.budgets import OverBudget
from pipelit.store.queries.children import Kin
from pipelit.store.queries.fencing import Fenced
from pipelit.store.queries.questions import list_answers
from pipelit.store.queries.sessions import NotItsTurn

ANSWER_INTERVAL = 1.0
"""Seconds between looks for answers that other servers took."""
STOP_DEADLINE = 2.0
"""Seconds that nodes get to end after the execution has: then they are written off."""


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
        self._last: tuple[Attempt, Outcome] | None = None
        self._askers: list[Reply[None]] = []
        self._questions = Questions(parts.ids, open_seconds=parts.answer_seconds)
        self._looks_for_answers = False
        self._draining = False
        self._written_off = False
        self._parting = False
        self._over = False
        self._position = 0
        self._recovered: frozenset[str] = frozenset()

    async def on_start(self) -> None:
        """Load the run and go on with it; nothing to do if it has ended meanwhile."""
        loaded, kin, some = await self._parts.store.read(self._load, patient=True)
        if loaded is None:
            self.ctx.stop()
            return
        parts, system = self._parts, self.ctx.system
        self._loaded = loaded
        self._clock = clock = RunClock(parts.clock, loaded)
        self._step_rows = StepRows(loaded, parts.owner, parts.ids)
        self._ledger = ledger = open_ledger(system, parts.store, parts.outlets, loaded, kin)
        self._children = Children(system, parts, loaded, kin, ledger=ledger, clock=clock, some=some)
        parent_id = None if kin is None else kin.parent_execution_id
        self._switch = parts.switches.open(self._id, parent_id)
        if self._verdict is not None:
            self._rebuild()
            await self._end(self._verdict)
        elif loaded.status == "pending":
            await self._begin()
        elif (loaded.owner, loaded.epoch) != (parts.owner.node_id, parts.owner.epoch):
            self._over = True  # another server has begun it meanwhile
            self.ctx.stop()
        else:
            await self._resume()
        if not self._over:
            self.ctx.start_soon(self._watch_limit, name="limit")

    def _load(self, conn: Connection) -> tuple[rows.Loaded | None, Kin | None, bool]:
        return (
            rows.load(conn, self._id),
            children.find_kin(conn, self._id),
            children.has_children(conn, self._id),
        )

    async def _watch_limit(self) -> None:
        """Stop the nodes when the time is over, also while the actor waits for the disk."""
        await trio.sleep(max(0.0, self._clock.remaining()))
        self._parts.switches.stop(self._id, self._clock.timed_out())
        self.ctx.post(SwitchedOff())

    async def receive(self, message: ExecutionMessage) -> None:
        """Handle one message; see each message's docstring."""
        if self._switch.ending is not None:
            await self._end(self._switch.ending)
        match message:
            case AttemptEnded(node_id=node_id, result=result):
                await self._attempt_ended(self._running.pop(node_id), result)
            case Due(at=at):
                self._clock.pass_over(at)
                if self._ending is None:
                    await self._commit(self._narrator.start_ready(now=self._clock.now()))
            case Waited(node_id=node_id):
                await self._waited(node_id)
            case SwitchedOff():
                pass  # that is heard with every message
            case Cancel():
                await self._cancel(message)
            case WriteOff():
                self._written_off = True
                await self._finish()
            case Suspended() | Resumed() | Counted():
                await self._hear_of_children(message)
            case Worded():
                await self._ask(message)
            case TakeAnswers():
                await self._take_answers()
                if self._ending is not None and not self._over:
                    self._askers.append(self.defer(message))
                else:
                    self.reply(message, None)
            case AnswersDue():
                self._looks_for_answers = False
                await self._take_answers()
            case _:
                assert_never(message)

    async def on_drain(self) -> None:
        """Start nothing more; stop when the running nodes have ended. The row keeps its status."""
        self._draining = True
        self._narrator.hold()
        self._stop_when_drained()

    async def _cancel(self, request: Cancel) -> None:
        if self._over:  # what it was told of just before was its end
            self.reply(request, None)
            return
        self._askers.append(self.defer(request))
        await self._end(CANCELLED)

    async def _hear_of_children(self, message: Suspended | Resumed | Counted) -> None:
        match message:
            case Suspended(node_id=node_id):
                self._narrator.suspended.add(node_id)
                if self._ending is None and not self._over:
                    await self._commit(self._narrator.start_ready(now=self._clock.now()))
                self._stop_when_drained()
            case Resumed(node_id=node_id):
                self._narrator.suspended.discard(node_id)
            case Counted(descendants=descendants, gone=gone):
                self._narrator.descendants = descendants
                if gone:
                    self._parting = self._children.some = False
                    await self._finish()

    async def _begin(self) -> None:
        beginning = await find_beginning(self._parts.store, self._parts.plans, self._loaded)
        self._narrator = self._parts.narrator(self._loaded, beginning.plan)
        changes = self._narrator.begin(
            self._loaded.trigger,
            self._step_rows.first_message(),
            payload=self._loaded.trigger_payload,
            problems=beginning.problems,
            now=self._clock.now(),
            takeover=beginning.takeover,
        )
        self._clock.begin()
        loaded = self._loaded
        session = loaded.thread_id if loaded.serial else None
        await self._commit(changes, begin=rows.Begin(beginning.snapshot, session))
        if not self._over:
            waited = self._parts.clock.now() - self._loaded.created_at
            self._parts.on_begun(waited.total_seconds())

    def _rebuild(self) -> None:
        plan = Plan(msgspec.convert(self._loaded.snapshot, Snapshot))
        self._narrator = self._parts.narrator(self._loaded, plan)
        self._narrator.state.fold(parse_record(record) for record in self._loaded.records)
        self._position = len(self._loaded.records)

    async def _resume(self) -> None:
        self._rebuild()
        rejoin(self.ctx.system, self._loaded)
        state = self._narrator.state
        self._recovered = frozenset(state.in_flight)
        self._launch(tuple(node for node in state.ready if node in self._recovered))
        for node, waiting in state.waiting.items():
            self.ctx.after(max(0.0, waiting.resume_at - self._clock.now()), Waited(node))
        for retry_at in state.retry_at.values():
            self.ctx.after(max(0.0, retry_at - self._clock.now()), Due(retry_at))
        await self._commit(self._narrator.start_ready(now=self._clock.now()))
        self._put_questions()
        await self._take_answers()
        if self._ending is None and not self._over:
            await self._commit(self._narrator.pause())

    def _launch(self, nodes: tuple[str, ...]) -> None:
        for node_id in nodes:
            task = self._prepare(node_id)
            self._running[node_id] = task
            task.scope = self.ctx.start_soon(self._run, task, name=node_id)
            self._switch.add(node_id, task.scope)

    def _prepare(self, node_id: str) -> AttemptTask:
        return self._parts.runner.prepare(
            loaded=self._loaded,
            state=self._narrator.state,
            node_id=node_id,
            ledger=self._ledger,
            started_at=self._clock.started_at,
            remaining=self._clock.remaining(),
            recovered=node_id in self._recovered,
            step_rows=self._step_rows,
            waits=ChildWaits(self._children, post=self.ctx.post),
            stamp=self._clock.stamp,
        )

    async def _run(self, task: AttemptTask) -> None:
        """Run an attempt as an own task: state is not touched here."""
        result: Outcome | Failure | None = None
        try:
            result = await task.run()
        finally:
            self.ctx.post(AttemptEnded(task.node_id, result))

    async def _attempt_ended(self, task: AttemptTask, result: Outcome | Failure | None) -> None:
        self._recovered -= {task.node_id}
        self._switch.remove(task.node_id)
        if isinstance(result, Failure):  # a retry continues from there
            self._loaded.checkpoints[task.key] = task.checkpoint
        if self._ending is not None:
            self._stopped[task.node_id] = (task.attempt(), task.cut_off(self._ending, result))
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
        ending = endings.rejection(self._narrator.state.plan, task.node_id, outcome)
        if ending is not None:
            self._last = (task.attempt(), outcome)
            await self._end(ending)
            return
        now, elapsed_ms = self._clock.now(), self._clock.elapsed_ms()
        changes = self._narrator.succeed(task.attempt(), outcome, now=now, elapsed_ms=elapsed_ms)
        await self._commit(changes, remember=(task.node_id, outcome.remember))

    async def _wait(self, task: AttemptTask, outcome: Outcome, delay: float) -> None:
        changes = self._narrator.wait(
            task.attempt(), outcome, resume_at=self._clock.now() + delay, now=self._clock.now()
        )
        await self._commit(changes)
        self.ctx.after(delay, Waited(task.node_id))

    async def _waited(self, node_id: str) -> None:
        waiting = self._narrator.state.waiting.get(node_id)
        if waiting is None or self._ending is not None or self._draining:
            return
        attempt = Attempt(node_id=node_id, number=waiting.attempt, duration_ms=waiting.duration_ms)
        now, elapsed_ms = self._clock.now(), self._clock.elapsed_ms()
        changes = self._narrator.succeed(attempt, waiting.outcome, now=now, elapsed_ms=elapsed_ms)
        await self._commit(changes)

    async def _fail(self, task: AttemptTask, failure: Failure) -> None:
        attempt = task.attempt()
        delay, fatal = retry_delay(failure, attempt=attempt.number), endings.ends_run(failure)
        if delay is not None:
            now = self._clock.now()
            await self._commit(self._narrator.retry_later(attempt, failure, delay=delay, now=now))
            self.ctx.after(delay, Due(now + delay))
        elif is_handled(self._narrator.state.plan, attempt.node_id) and not fatal:
            now, elapsed_ms = self._clock.now(), self._clock.elapsed_ms()
            changes = self._narrator.handle_failure(
                attempt, failure, now=now, elapsed_ms=elapsed_ms
            )
            await self._commit(changes)
        else:
            await self._break(Failed(attempt, failure))

    async def _break(self, failed: Failed) -> None:
        """End the run with the failure of a node."""
        self._stopped[failed.attempt.node_id] = (failed.attempt, failed.failure)
        await self._end(endings.failed_by(failed.attempt, failed.failure))

    def _put_questions(self) -> None:
        """Have the questions put into words that are to be asked now."""
        if self._draining or self._ending is not None:
            return
        state = self._narrator.state
        for asking in self._questions.take(state.unasked):
            node_id, _, when = asking
            if when == "before" and is_confirmation(state.plan.nodes[node_id]):
                self.ctx.start_soon(self._word, self._prepare(node_id), name=f"{node_id} question")
            else:
                self.ctx.post(Worded(asking))

    async def _word(self, task: AttemptTask) -> None:
        """Put a confirmation's question into words, as an own task."""
        self.ctx.post(Worded((*task.key, "before"), await task.word_question()))

    async def _ask(self, worded: Worded) -> None:
        if self._draining or self._ending is not None or self._over:
            return
        state, node_id = self._narrator.state, worded.asking[0]
        question = self._questions.make(state.plan, worded.asking, worded.prompt, self._clock.now())
        if worded.asking not in state.unasked:  # its iteration was broken off meanwhile
            return
        if question is None:
            await self._commit(self._narrator.start_unasked(node_id))
            return
        await self._commit(self._narrator.ask(question, now=self._clock.now()))
        announce(self.ctx.system, self._loaded, question)
        self._look_for_answers_later()

    async def _take_answers(self) -> None:
        """Go on with the answers that were stored, each once."""
        if self._ending is not None or self._over:
            return
        found = await self._parts.store.read(
            lambda conn: list_answers(conn, self._id), patient=True
        )
        for answer in found:
            asked = self._narrator.state.questions.get(answer.task_id)
            if asked is not None and self._ending is None and not self._over:
                await self._answer(asked, answer.text)
        self._look_for_answers_later()

    async def _answer(self, asked: Asked, text: str | None) -> None:
        ending = endings.refusal(self._narrator.state.plan, asked, text)
        if ending is not None:
            await self._end(ending)
            return
        now, elapsed_ms = self._clock.now(), self._clock.elapsed_ms()
        await self._commit(self._narrator.answer(asked, text or "", now=now, elapsed_ms=elapsed_ms))

    def _look_for_answers_later(self) -> None:
        if self._narrator.state.questions and not self._looks_for_answers and not self._over:
            self._looks_for_answers = True
            self.ctx.after(ANSWER_INTERVAL, AnswersDue())

    async def _end(self, ending: Ending) -> None:
        """Stop all nodes, then write the end. The first ending wins."""
        if self._ending is not None or self._over:
            return
        self._ending = ending
        self._parts.switches.stop(self._id, ending)
        if self._running:
            self.ctx.after(STOP_DEADLINE, WriteOff())
        await self._finish()

    async def _finish(self) -> None:
        """Write the end, once all nodes are gone, or written off, and then all children."""
        if self._ending is None or self._over or (self._running and not self._written_off):
            return
        if self._children.some:
            if not self._parting:
                self._parting = True
                self.ctx.start_soon(self._part, name="children")
            return
        for node_id, task in self._running.items():
            self._stopped[node_id] = (task.attempt(), task.cut_off(self._ending, None))
        changes = self._narrator.end(
            self._ending,
            self._stopped,
            now=self._clock.now(),
            elapsed_ms=self._clock.elapsed_ms(),
            last=self._last,
        )
        await self._commit(changes)

    async def _part(self) -> None:
        await self._children.cancel()
        self.ctx.post(Counted(await self._children.descendants(), gone=True))

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
            stamp=self._clock.stamp(),
            begin=begin,
            remember=remember,
            open_questions=self._narrator.state.questions,
        )
        try:
            interrupted = await self._ledger.write(step)
        except OverBudget as problem:
            allowed = endings.refuse_start(self._narrator.state, changes)
            await self._commit(allowed, begin=begin, remember=remember)
            await self._end(endings.over_budget(str(problem)))
            return
        except NotItsTurn:  # it stays pending, for whoever goes on with the session
            self._over = True
            self.ctx.stop()
            return
        except Fenced as fenced:
            self.ctx.emit("fenced", owner=fenced.owner, epoch=fenced.epoch)
            self._over = True
            self.ctx.stop()
            return
        self._position += len(changes.records)
        if changes.ending is not None:
            self._over = True
            failed = changes.ending.status == "failed"
            after_end.wake(self.ctx.system, failed=failed, replies=bool(step.dispatches))
            for waiting in self._askers:
                waiting.send(None)
            self.ctx.stop()
        elif interrupted:  # whoever takes the answer up goes on
            self._over = True
            self.ctx.stop()
        else:
            self._launch(changes.started)
            self._put_questions()
            if changes.broken is not None:
                await self._break(changes.broken)
            if changes.interrupted:  # an answer came in between
                self.ctx.post(AnswersDue())
            if self._switch.ending is not None and self._ending is None:
                self.ctx.post(SwitchedOff())  # it was stopped while the actor could not hear

    def _stop_when_drained(self) -> None:
        if self._ending is not None and not self._over:
            return  # the end is written first: it would be forgotten
        if self._draining and not self._running.keys() - self._narrator.suspended:
            self.ctx.stop()

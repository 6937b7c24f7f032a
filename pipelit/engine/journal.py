"""The journal of an execution, and the state that is its fold.

A record is written in the transaction that makes it true. Folding the records of an execution in
order rebuilds everything the engine knows about it; there is no other authoritative state, so
a new execution and a recovered one take the same path.

A node runs in one iteration at a time, so the state is kept by node: a new iteration forgets
what the last one left of the body.

Contract: engine.md §10.1–10.3, §12, §13, §18.
"""

from collections.abc import Collection, Iterable
from typing import Any, Literal, TypeAlias

import msgspec

from pipelit.engine import results
from pipelit.engine.graph import Plan
from pipelit.engine.loops import LoopRun
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Usage, json_size
from pipelit.engine.questions import Asking, asks_before
from pipelit.engine.records import (
    ROOT,
    Answered,
    Asked,
    AttemptFailed,
    Begun,
    Iterating,
    Looped,
    NodeFailed,
    NodeSucceeded,
    Record,
    Started,
    Waiting,
)
from pipelit.engine.resolution import Resolution
from pipelit.engine.results import NodeResult
from pipelit.engine.routing import Ending, has_error_edge

SkipReason: TypeAlias = Literal["Route did not match", "Upstream node failed"]


class Step(msgspec.Struct, frozen=True):
    """What follows from a record: nodes that may run now, and nodes passed by, both in order."""

    ready: tuple[str, ...] = ()
    skipped: tuple[tuple[str, SkipReason], ...] = ()


class RunState:
    """The fold. Owned by one execution actor; changed only by `apply`."""

    def __init__(self, plan: Plan, *, max_messages: int = 2000) -> None:
        self.plan = plan
        self.trigger: dict[str, Any] = {}
        self.messages: list[ChatMessage] = []
        self.node_outputs: dict[str, dict[str, Any]] = {}
        self.results: dict[str, NodeResult] = {}
        self.output: Any = msgspec.UNSET
        self.patch: dict[str, Any] = {}
        self.usage = Usage()
        self.size = 0  # bytes of JSON in node_outputs and messages (engine.md §31)
        # Nodes that may run and have no result yet, in the order they became ready.
        self.ready: dict[str, None] = {}
        # Those of `ready` whose `running` was announced.
        self.started: set[str] = set()
        self.attempts: dict[str, int] = {}  # {node: index of the next attempt}
        self.attempt_usage: dict[str, Usage] = {}  # {node: usage of its failed attempts}
        self.retry_at: dict[str, float] = {}
        self.waiting: dict[str, Waiting] = {}
        self.questions: dict[str, Asked] = {}  # {task id: an open question}, oldest first
        self.answers: dict[str, str] = {}  # {node: the answer that lets it run}
        # Nodes that succeeded and whose successors wait for an answer.
        self.held: dict[str, None] = {}
        self.loops: dict[str, LoopRun] = {}  # {node: its progress}, loops that are at work
        # Those of `loops` whose iteration is over: `loops.what_next` says what is to be recorded.
        self.settled: dict[str, None] = {}
        self.steps: set[str] = set()  # nodes that succeeded or failed, in whatever iteration
        self._max_messages = max_messages
        self._routes: dict[str, str] = {}  # {ended node: the route its successors inherit}
        self._edges = Resolution(plan)
        # What is forgotten of a node when its body is run once more; the rest has ended by then.
        self._of_iteration: tuple[dict[str, Any], ...] = (
            *(self.node_outputs, self.results, self._routes, self.answers),
            *(self.attempts, self.attempt_usage, self.retry_at),
        )
        self._sizes: dict[str, int] = {}  # {node: bytes of JSON of its ports}

    def apply(self, record: Record) -> Step:
        """Fold one record in and return what follows from it."""
        step = self._fold(record)
        self._start(record.nodes if isinstance(record, Started) else getattr(record, "started", ()))
        return step

    def _fold(self, record: Record) -> Step:
        match record:
            case Begun():
                return self._begin(record)
            case Started():
                return Step()
            case AttemptFailed(node_id=node):
                self.attempts[node] = record.attempt + 1
                self.retry_at[node] = record.retry_at
                self.started.discard(node)
                self.attempt_usage[node] = self.attempt_usage.get(node, Usage()) + record.usage
                self.usage += record.usage
                return Step()
            case Waiting(node_id=node):
                self.waiting[node] = record
                return Step()
            case Looped():
                return self._loop(record)
            case Iterating():
                return self._iterate(record)
            case NodeSucceeded():
                return self._succeed(record)
            case Asked(task_id=task_id):
                self.questions[task_id] = record
                return Step()
            case Answered():
                return self._answer(record)
            case NodeFailed():
                return self._fail(record)

    def fold(self, records: Iterable[Record]) -> None:
        """Apply all *records* in order."""
        for record in records:
            self.apply(record)

    @property
    def is_done(self) -> bool:
        """Nothing runs, waits or is ready: the execution is complete."""
        return not self.ready and not self.held

    @property
    def is_blocked(self) -> bool:
        """Nothing goes on before a person answers."""
        asked = {question.node_id for question in self.questions.values()}
        going_on = (self.ready.keys() - self.loops.keys()) | self.held.keys()
        return bool(asked) and going_on <= asked

    @property
    def in_flight(self) -> set[str]:
        """The nodes whose attempts run now."""
        return self.started - self.waiting.keys() - self.loops.keys()

    @property
    def unasked(self) -> tuple[Asking, ...]:
        """The questions that are to be put: whose, in which iteration, before or after it runs."""
        asked = {(q.node_id, q.iteration, q.when) for q in self.questions.values()}
        before: list[Asking] = [
            (node, self.iteration_of(node), "before")
            for node in self.ready
            if node not in self.started and self.must_ask(node)
        ]
        after: list[Asking] = [(node, self.iteration_of(node), "after") for node in self.held]
        return tuple(question for question in (*before, *after) if question not in asked)

    def must_ask(self, node_id: str) -> bool:
        """Tell whether the node may not run before a person has answered."""
        return node_id not in self.answers and asks_before(self.plan.nodes[node_id])

    def iteration_of(self, node_id: str) -> str:
        """The current iteration of a node: `ROOT`, or the indices of the loops around it."""
        return ".".join(str(run.index) for run in reversed(self._around(node_id))) or ROOT

    def place_of(self, node_id: str) -> dict[str, Any]:
        """What events say of where a node is: nothing outside loops."""
        around = self._around(node_id)
        return {"iteration": self.iteration_of(node_id), "loop": around[0].view} if around else {}

    def loop_view(self, node_id: str) -> dict[str, Any] | None:
        """The `loop` object that a node sees: its innermost loop, and the others as parents."""
        view: dict[str, Any] | None = None
        for run in reversed(self._around(node_id)):
            view = {"item": run.items[run.index], **run.view, "parent": view}
        return view

    def _around(self, node_id: str) -> list[LoopRun]:
        """The loops at work around a node, the innermost first."""
        found = []
        loop = self.plan.loop_of.get(node_id)
        while loop is not None:
            if (run := self.loops.get(loop)) is not None and run.index >= 0:
                found.append(run)
            loop = self.plan.loop_of.get(loop)
        return found

    def route_of(self, node_id: str) -> str:
        """The route a node sees: that of its latest committed taken predecessor."""
        source = self._edges.latest(node_id)
        return "" if source is None else self._routes.get(source, "")

    def predecessors(self, node_id: str) -> tuple[str, ...]:
        """The taken direct predecessors of a node, in edge order, the trigger included."""
        return self._edges.predecessors(node_id)

    def unresolved(self) -> tuple[str, ...]:
        """The graph nodes without a result, in row order."""
        return tuple(node for node in self.plan.snapshot.walked if node not in self.results)

    def unfinished(self) -> tuple[str, ...]:
        """The nodes that were announced and have no result: they ran, or wait."""
        asked = {q.node_id for q in self.questions.values() if q.when == "before"}
        # An answered node may still wait for a slot; a failed one, for its retry, does not wait.
        waiting = asked | (self.answers.keys() - self.attempts.keys())
        return tuple(node for node in self.ready if node in self.started or node in waiting)

    def _begin(self, record: Begun) -> Step:
        self.trigger = record.trigger
        self._say(record.messages)
        trigger = self.plan.snapshot.trigger_node_id
        if trigger is None:
            step = Step(ready=self.plan.snapshot.entries)
            self.ready.update(dict.fromkeys(step.ready))
        else:
            self.node_outputs[trigger] = record.trigger
            self._routes[trigger] = ""
            step = self._resolve(trigger, "success")
        return step

    def _start(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self.started.add(node)
            self.retry_at.pop(node, None)

    def _succeed(self, record: NodeSucceeded) -> Step:
        outcome = record.outcome
        self.node_outputs[record.node_id] = outcome.ports
        self._sizes[record.node_id] = json_size(outcome.ports)
        self.size += self._sizes[record.node_id]
        self._say(outcome.messages)
        self.patch.update(_allowed_patch(outcome.state_patch))
        if outcome.output is not msgspec.UNSET:
            self.output = outcome.output
        if outcome.route is not None:
            self._routes[record.node_id] = outcome.route
        else:
            self._routes[record.node_id] = self.route_of(record.node_id)
        self.results[record.node_id] = results.succeeded(
            record,
            attempt=self.attempts.get(record.node_id, 0),
            waited=self.waiting.get(record.node_id),
        )
        return self._end(record.node_id, "success", record.usage)

    def _answer(self, record: Answered) -> Step:
        self.questions.pop(record.task_id, None)
        step = Step()
        if record.when == "before":
            self.answers[record.node_id] = record.text
        elif record.node_id in self.held:
            del self.held[record.node_id]
            step = self._resolve(record.node_id, "success")
        return step

    def _say(self, messages: tuple[ChatMessage, ...]) -> None:
        self.messages.extend(messages)
        dropped = self.messages[: -self._max_messages]
        del self.messages[: len(dropped)]
        self.size += sum(map(json_size, messages)) - sum(map(json_size, dropped))

    def _fail(self, record: NodeFailed) -> Step:
        self._routes[record.node_id] = self.route_of(record.node_id)
        component_type = self.plan.nodes[record.node_id].component_type
        self.results[record.node_id] = results.failed(record, component_type=component_type)
        loop = self.plan.loop_of.get(record.node_id)
        if loop is None or has_error_edge(self.plan, record.node_id):
            return self._end(record.node_id, "failed", record.usage)
        run = self.loops[loop]
        run.failure = run.failure or msgspec.structs.replace(record, started=())
        step = self._end(record.node_id, "failed", record.usage)
        return Step(skipped=step.skipped + self._break_off(loop))

    def _end(self, node: str, ending: Ending, usage: Usage) -> Step:
        self.ready.pop(node, None)
        self.started.discard(node)
        self.waiting.pop(node, None)
        self.settled.pop(node, None)
        if (run := self.loops.pop(node, None)) is not None:
            self.size -= run.size
        self.usage += usage
        self.steps.add(node)
        if ending == "success" and self.plan.nodes[node].interrupt_after:
            self.held[node] = None
            return Step()
        return self._resolve(node, ending)

    def _loop(self, record: Looped) -> Step:
        node = record.node_id
        run = LoopRun(looped=record, size=json_size(record.outcome.loop_items))
        self.loops[node] = run
        self.size += run.size
        self._routes[node] = self.route_of(node)
        self.started.add(node)
        self.settled[node] = None
        return Step()

    def _iterate(self, record: Iterating) -> Step:
        loop = record.node_id
        body, run = self.plan.bodies[loop], self.loops[loop]
        self._forget(body.nodes)
        del self.settled[loop]
        run.index, run.failure, run.left = record.index, None, len(body.own)
        ready: list[str] = []
        skipped: list[tuple[str, SkipReason]] = []
        for node in self._edges.enter_body(loop):
            if self._edges.is_taken(node):
                ready.append(node)
            else:
                self.results[node] = results.skipped("Route did not match")
                skipped.append((node, "Route did not match"))
                beyond = self._resolve(node, "skipped")
                ready += beyond.ready
                skipped += beyond.skipped
        self.ready.update(dict.fromkeys(ready))
        return Step(ready=tuple(ready), skipped=tuple(skipped))

    def _forget(self, nodes: Collection[str]) -> None:
        """Let the nodes of a body be as if they had never run."""
        self._edges.reopen(nodes)
        for node in nodes:
            self.size -= self._sizes.pop(node, 0)
            for known in self._of_iteration:
                known.pop(node, None)

    def _break_off(self, loop: str) -> tuple[tuple[str, SkipReason], ...]:
        """Skip what has not begun of a broken iteration; the rest ends as it would."""
        asked = {question.node_id for question in self.questions.values()}
        begun = self.started | asked | self.attempts.keys() | self.answers.keys()
        skipped: list[tuple[str, SkipReason]] = []
        for node in self.plan.bodies[loop].own:
            if node not in self.results and not (node in self.ready and node in begun):
                self.ready.pop(node, None)
                self.results[node] = results.skipped("Upstream node failed")
                skipped.append((node, "Upstream node failed"))
                skipped += self._resolve(node, "skipped", "Upstream node failed").skipped
        return tuple(skipped)

    def _resolve(
        self, node: str, ending: Ending, reason: SkipReason = "Route did not match"
    ) -> Step:
        """Resolve the edges leaving an ended node, then those of the nodes this skips."""
        if ending == "failed":
            reason = "Upstream node failed"
        ready: list[str] = []
        skipped: list[tuple[str, SkipReason]] = []
        stack = [node]
        while stack:
            current = stack.pop()
            if current != node:
                skipped.append((current, reason))
            passed_by: list[str] = []
            for target in self._leave(current, ending if current == node else "skipped"):
                if self._edges.is_taken(target):
                    ready.append(target)
                else:
                    self.results[target] = results.skipped(reason)
                    passed_by.append(target)
            stack.extend(reversed(passed_by))
        self.ready.update(dict.fromkeys(ready))
        return Step(ready=tuple(ready), skipped=tuple(skipped))

    def _leave(self, node: str, ending: Ending) -> list[str]:
        """Resolve the edges that leave *node*; return the targets this resolves, in edge order."""
        targets = self._edges.leave(node, ending, self._routes.get(node, ""))
        self._count_off(node)
        return [t for t in targets if t not in self.results and t not in self.ready]

    def _count_off(self, node: str) -> None:
        """Note that a node is resolved: its iteration is over with its last node."""
        run = self.loops.get(self.plan.loop_of.get(node, ""))
        if run is None or run.index < 0:
            return
        run.left -= 1
        if not run.left:
            self.size += run.collect(self.plan, self._ports_of)
            self.settled[run.looped.node_id] = None

    def _ports_of(self, node: str) -> dict[str, Any] | None:
        result = self.results.get(node)
        return result.ports if result is not None and result.ending == "success" else None


_RESERVED = frozenset({"messages", "node_outputs", "node_results", "trigger", "execution_id"})


def _allowed_patch(patch: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in patch.items() if k not in _RESERVED and not k.startswith("_")}

"""The journal of an execution, and the state that is its fold.

A record is written in the transaction that makes it true. Folding the records of an execution in
order rebuilds everything the engine knows about it; there is no other authoritative state, so
a new execution and a recovered one take the same path.

Contract: engine.md §10.1–10.3, §12, §18.
"""

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec

from pipelit.engine.definition import flow_targets
from pipelit.engine.graph import Plan
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Usage, json_size
from pipelit.engine.questions import When, asks_before
from pipelit.engine.records import (
    Answered,
    Asked,
    AttemptFailed,
    Begun,
    NodeFailed,
    NodeSucceeded,
    Record,
    Started,
    Waiting,
)
from pipelit.engine.routing import Ending, taken_targets

SkipReason: TypeAlias = Literal["Route did not match", "Upstream node failed"]


class Step(msgspec.Struct, frozen=True):
    """What follows from a record: nodes that may run now, and nodes passed by, both in order."""

    ready: tuple[str, ...] = ()
    skipped: tuple[tuple[str, SkipReason], ...] = ()


class NodeResult(msgspec.Struct, frozen=True):
    """How a node of the run ended."""

    ending: Ending
    ports: dict[str, Any] = {}
    error: dict[str, Any] | None = None


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
        self._max_messages = max_messages
        self._routes: dict[str, str] = {}  # {ended node: the route its successors inherit}
        self._taken_by: dict[str, list[str]] = {}  # {node: taken predecessors, in commit order}
        # A loop does not wait for its own body: `loop_return` edges join nothing.
        self._open: dict[str, set[tuple[int, str]]] = {
            node: {
                (edge.id, edge.source_node_id)
                for edge in plan.incoming.get(node, ())
                if edge.edge_label != "loop_return"
            }
            for node in plan.snapshot.walked
        }

    def apply(self, record: Record) -> Step:
        """Fold one record in and return what follows from it."""
        match record:
            case Begun():
                return self._begin(record)
            case Started(nodes=nodes):
                self._start(nodes)
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
        return bool(asked) and self.ready.keys() | self.held.keys() <= asked

    @property
    def unasked(self) -> tuple[tuple[str, When], ...]:
        """The questions that are to be put: whose, and whether before or after it runs."""
        asked = {(question.node_id, question.when) for question in self.questions.values()}
        before: list[tuple[str, When]] = [
            (node, "before")
            for node in self.ready
            if node not in self.started and self.must_ask(node)
        ]
        after: list[tuple[str, When]] = [(node, "after") for node in self.held]
        return tuple(question for question in (*before, *after) if question not in asked)

    def must_ask(self, node_id: str) -> bool:
        """Tell whether the node may not run before a person has answered."""
        return node_id not in self.answers and asks_before(self.plan.nodes[node_id])

    def route_of(self, node_id: str) -> str:
        """The route a node sees: that of its latest committed taken predecessor."""
        sources = self._taken_by.get(node_id, ())
        return self._routes.get(sources[-1], "") if sources else ""

    def predecessors(self, node_id: str) -> tuple[str, ...]:
        """The taken direct predecessors of a node, in edge order, the trigger included."""
        taken = set(self._taken_by.get(node_id, ()))
        ordered = (edge.source_node_id for edge in self.plan.incoming.get(node_id, ()))
        return tuple(dict.fromkeys(source for source in ordered if source in taken))

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
        self._start(record.started)
        return step

    def _start(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self.started.add(node)
            self.retry_at.pop(node, None)

    def _succeed(self, record: NodeSucceeded) -> Step:
        outcome = record.outcome
        self.node_outputs[record.node_id] = outcome.ports
        self.size += json_size(outcome.ports)
        self._say(outcome.messages)
        self.patch.update(_allowed_patch(outcome.state_patch))
        if outcome.output is not msgspec.UNSET:
            self.output = outcome.output
        if outcome.route is not None:
            self._routes[record.node_id] = outcome.route
        else:
            self._routes[record.node_id] = self.route_of(record.node_id)
        self.results[record.node_id] = NodeResult("success", outcome.ports)
        return self._end(record.node_id, "success", record.usage, record.started)

    def _answer(self, record: Answered) -> Step:
        self.questions.pop(record.task_id, None)
        step = Step()
        if record.when == "before":
            self.answers[record.node_id] = record.text
        elif record.node_id in self.held:
            del self.held[record.node_id]
            step = self._resolve(record.node_id, "success")
        self._start(record.started)
        return step

    def _say(self, messages: tuple[ChatMessage, ...]) -> None:
        self.messages.extend(messages)
        dropped = self.messages[: -self._max_messages]
        del self.messages[: len(dropped)]
        self.size += sum(map(json_size, messages)) - sum(map(json_size, dropped))

    def _fail(self, record: NodeFailed) -> Step:
        error = {
            "code": record.code,
            "message": record.message,
            "node_id": record.node_id,
            "details": {
                "component_type": self.plan.nodes[record.node_id].component_type,
                "attempts": record.attempts,
                "at": record.at,
            },
        }
        self._routes[record.node_id] = self.route_of(record.node_id)
        self.results[record.node_id] = NodeResult("failed", error=error)
        return self._end(record.node_id, "failed", record.usage, record.started)

    def _end(self, node: str, ending: Ending, usage: Usage, started: tuple[str, ...]) -> Step:
        self.ready.pop(node, None)
        self.started.discard(node)
        self.waiting.pop(node, None)
        self.usage += usage
        if ending == "success" and self.plan.nodes[node].interrupt_after:
            self.held[node] = None
            step = Step()
        else:
            step = self._resolve(node, ending)
        self._start(started)
        return step

    def _resolve(self, node: str, ending: Ending) -> Step:
        """Resolve the edges leaving an ended node, then those of the nodes this skips."""
        reason: SkipReason = "Upstream node failed" if ending == "failed" else "Route did not match"
        ready: list[str] = []
        skipped: list[tuple[str, SkipReason]] = []
        stack = [node]
        while stack:
            current = stack.pop()
            if current != node:
                skipped.append((current, reason))
            passed_by: list[str] = []
            for target in self._leave(current, ending if current == node else "skipped"):
                if self._taken_by.get(target):
                    ready.append(target)
                else:
                    self.results[target] = NodeResult("skipped")
                    passed_by.append(target)
            stack.extend(reversed(passed_by))
        self.ready.update(dict.fromkeys(ready))
        return Step(ready=tuple(ready), skipped=tuple(skipped))

    def _leave(self, node: str, ending: Ending) -> list[str]:
        """Resolve the edges that leave *node*; return the targets this resolves, in edge order."""
        taken = taken_targets(self.plan, node, ending, self._routes.get(node, ""))
        touched: dict[str, None] = {}
        for edge in self.plan.outgoing.get(node, ()):
            for target in flow_targets(edge):
                if target in self._open:
                    touched[target] = None
                    self._open[target].discard((edge.id, node))
                    if (edge.id, target) in taken:
                        self._taken_by.setdefault(target, []).append(node)
        return [
            target
            for target in touched
            if not self._open[target] and target not in self.results and target not in self.ready
        ]


_RESERVED = frozenset({"messages", "node_outputs", "node_results", "trigger", "execution_id"})


def _allowed_patch(patch: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in patch.items() if k not in _RESERVED and not k.startswith("_")}

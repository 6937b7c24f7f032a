"""Graphs written as text, and a run of one that a test drives by hand.

`"a > b"` is a flow edge, `"s ?yes> b"` a conditional one, `"m llm> a"` an attached node. What a
node is follows from its name: `t…` a chat trigger, `s…` a switch, `h…` an error handler, `r…` a
`reply_chat`, `ag…` an agent, `m…` a model, `calc…` a calculator, `q…` a confirmation, `l…` a loop;
all else is a `merge`. `"l loop_body> a"` leads into a loop's body, `"a loop_return> l"` back.
"""

import re
from collections.abc import Collection, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from pipelit.engine.changes import Attempt, Changes, Ending, Event, Kind, Log, Question
from pipelit.engine.definition import EdgeDef, NodeDef
from pipelit.engine.graph import Plan, build_snapshot
from pipelit.engine.journal import RunState
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Failure, Outcome
from pipelit.engine.questions import When, flag_prompt
from pipelit.engine.records import Record, activation, parse_record, record_kind
from pipelit.engine.steps import Narrator
from pipelit.engine.takeover import Takeover

_EDGE = re.compile(r"(\w+) (\?\w+|\w*)> (\w+)")
_TYPES = {
    "t": "trigger_chat",
    "s": "switch",
    "h": "error_handler",
    "r": "reply_chat",
    "ag": "agent",
    "m": "ai_model",
    "calc": "calculator",
    "q": "human_confirmation",
    "l": "loop",
}
_NAMED = re.compile(r"(ag|calc|[tshrmql])\d*")


def type_of(name: str) -> str:
    named = _NAMED.fullmatch(name)
    return _TYPES[named[1]] if named else "merge"


def edges_of(*texts: str) -> list[EdgeDef]:
    """Read edges; their ids count from 1 in this order."""
    edges = []
    for number, text in enumerate(texts, start=1):
        found = _EDGE.fullmatch(text)
        assert found is not None, text
        source, how, target = found.groups()
        edges.append(
            EdgeDef(
                id=number,
                source_node_id=source,
                target_node_id=target,
                edge_type="conditional" if how.startswith("?") else "direct",
                edge_label="" if how.startswith("?") else how,
                condition_value=how[1:],
            )
        )
    return edges


def nodes_of(edges: list[EdgeDef], *more: str) -> list[NodeDef]:
    """Return the nodes that edges name, in the order of their first mention."""
    named = [n for edge in edges for n in (edge.source_node_id, edge.target_node_id)]
    names = dict.fromkeys([*named, *more])
    return [
        NodeDef(id=number, node_id=name, component_type=type_of(name))
        for number, name in enumerate((n for n in names if n and n != "__end__"), start=1)
    ]


def plan_of(
    *texts: str,
    trigger: str | None = "t",
    before: Collection[str] = (),
    after: Collection[str] = (),
    continuing: Collection[str] = (),
) -> Plan:
    """Compile edges. `before`, `after`: nodes with the flag; `continuing`: loops that go on."""
    edges = edges_of(*texts)
    nodes = [
        msgspec.structs.replace(
            node,
            interrupt_before=node.node_id in before,
            interrupt_after=node.node_id in after,
            config={"extra_config": {"on_error": "continue"}} if node.node_id in continuing else {},
        )
        for node in nodes_of(edges)
    ]
    return Plan(build_snapshot(nodes, edges, trigger))


ROUTES = ("yes", "no", "default")


def random_graph(random: Random, count: int) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of *count* nodes in topological order, and edges; not all are reached."""
    names: list[str] = []
    edges: set[str] = set()
    _grow(random, "t", count, names, edges, depth=0)
    return names, tuple(random.sample(sorted(edges), len(edges)))


def _grow(
    random: Random, entry: str, count: int, names: list[str], edges: set[str], *, depth: int
) -> None:
    """Add *count* nodes behind a trigger, or in the body of a loop, and what is in their bodies."""
    end = len(names) + count
    mine: list[str] = []
    while len(names) < end:
        kind = random.choices("nshrl", weights=[12, 4, 2, 1, 0 if depth == 3 else 2])[0]
        name = f"{kind}{len(names)}"
        names.append(name)
        for source in random.sample(mine, min(len(mine), random.choice((0, 1, 1, 2, 3)))):
            how = f"?{random.choice(ROUTES)}" if source[0] == "s" and kind != "h" else ""
            edges.add(f"{source} {how}> {name}")
        mine.append(name)
        if kind == "l":
            size = min(end - len(names), random.randint(0, 12))
            _grow(random, name, size, names, edges, depth=depth + 1)
    label = "" if entry == "t" else "loop_body"
    found = [*mine[:1], *random.sample(mine, min(len(mine), random.randint(0, 2)))]
    edges.update(f"{entry} {label}> {name}" for name in found)
    if entry != "t":
        returning = random.sample(mine, min(len(mine), random.randint(0, 2)))
        edges.update(f"{name} loop_return> {entry}" for name in returning)


class Told(Protocol):
    """An event of a run, stored or not yet."""

    @property
    def type(self) -> str: ...

    @property
    def data(self) -> dict[str, Any]: ...


_MAY_FOLLOW = {
    "pending": {""},
    "running": {"pending", "again", "asked"},
    "iterating": {"running", "iterating"},
    "waiting": {"running"},
    "asked": {"pending"},
    "again": {"running"},
    "success": {"running", "iterating", "waiting"},
    "failed": {"running", "iterating", "waiting", "asked"},
    "skipped": {"", "pending", "again"},
}
_ENDED = {"success", "failed", "skipped"}


def check_story(events: Sequence[Told], plan: Plan) -> None:
    """Check the events of an ended run against engine.md §9.3: its nodes all ended, in order.

    A node has a story in each iteration that reached it.
    """
    assert events[0].type == "execution_started"
    assert events[-1].type.startswith("execution_")
    steps: dict[tuple[str, str], list[str]] = {}
    for event in events[1:-1]:
        if event.type == "execution_interrupted":
            continue
        assert event.type == "node_status"
        data = event.data
        node, iteration = data["node_id"], data.get("iteration", "")
        mine = steps.setdefault((node, iteration), [])
        before = mine[-1] if mine else ""
        status = _word(data, before)
        assert before in _MAY_FOLLOW[status], (node, iteration, before, status)
        if status == "pending":
            for edge in plan.incoming[node]:
                source = (edge.source_node_id, iteration)
                if edge.edge_label == "" and source[0] != "t":
                    assert steps[source][-1] in _ENDED
        mine.append(status)
    assert {node for node, _ in steps} == set(plan.snapshot.walked)
    for (node, _), story in steps.items():
        assert story[-1] in _ENDED, (node, story)
        attempts = sum(word in {"again", "success", "failed"} for word in story)
        unanswered = story[-2:] == ["asked", "failed"]
        stopped = "iterating" in story and story[-1] == "failed"
        assert story.count("running") == attempts - unanswered or stopped, (node, story)


def _word(data: dict[str, Any], before: str) -> str:
    if data.get("will_retry"):
        return "again"
    if "task_id" in data:
        return "asked"
    if data["status"] == "running" and before in {"running", "iterating"}:
        assert "loop" in data
        return "iterating"
    status: str = data["status"]
    return status


class Run:
    """A run without clock, store and tasks: the test says which attempt ends how."""

    def __init__(self, plan: Plan, *, max_parallel: int = 10, max_messages: int = 2000) -> None:
        self.state = RunState(plan, max_messages=max_messages)
        self.mirror = RunState(plan, max_messages=max_messages)
        self.narrator = Narrator("e1", 7, "flow", self.state, max_parallel=max_parallel)
        self.max_parallel = max_parallel
        self.now = 100.0
        self.events: list[Event] = []
        self.logs: list[Log] = []
        self.running: list[str] = []
        self.ending: Ending | None = None
        self.interrupted = False
        self.asked = 0
        self.stored: list[Record] = []
        self.done: set[tuple[str, str]] = set()

    def begin(
        self,
        *messages: ChatMessage,
        problems: tuple[str, ...] = (),
        takeover: Takeover | None = None,
    ) -> Changes:
        payload = {"text": "hi"}
        trigger = {"text": "hi", "payload": payload, "source": "chat"}
        return self._note(
            self.narrator.begin(
                trigger,
                messages,
                payload=payload,
                problems=problems,
                now=self.now,
                takeover=takeover,
            )
        )

    def succeed(self, node: str, outcome: Outcome | None = None, **ports: Any) -> Changes:
        attempt = self._attempt(node)
        if node in self.running:
            self.running.remove(node)
        outcome = outcome or Outcome(ports=ports or {"output": node})
        return self._note(self.narrator.succeed(attempt, outcome, now=self.now, elapsed_ms=1000))

    def loop(self, node: str, *items: Any) -> Changes:
        """Let a loop have found its items."""
        return self.succeed(node, Outcome(ports={}, loop_items=list(items)))

    def route(self, node: str, route: str) -> Changes:
        return self.succeed(node, Outcome(ports={"route": route}, route=route))

    def retry(self, node: str, delay: float = 1.0, failure: Failure | None = None) -> Changes:
        self.running.remove(node)
        failure = failure or Failure(code="RuntimeError", message="no", retryable=True)
        return self._note(
            self.narrator.retry_later(self._attempt(node), failure, delay=delay, now=self.now)
        )

    def handle(self, node: str) -> Changes:
        self.running.remove(node)
        failure = Failure(code="RuntimeError", message="no", retryable=True)
        return self._note(
            self.narrator.handle_failure(
                self._attempt(node), failure, now=self.now, elapsed_ms=1000
            )
        )

    def wait(self, node: str, seconds: float, outcome: Outcome | None = None) -> Changes:
        self.running.remove(node)
        outcome = outcome or Outcome(ports={"output": node}, delay_seconds=seconds)
        return self._note(
            self.narrator.wait(
                self._attempt(node), outcome, resume_at=self.now + seconds, now=self.now
            )
        )

    def ask(self, node: str, when: When) -> Changes:
        kind: Kind = "interrupt_before" if when == "before" else "interrupt_after"
        self.asked += 1
        question = Question(
            task_id=f"{self.asked:08}",
            node_id=node,
            iteration=self.state.iteration_of(node),
            kind=kind,
            prompt=flag_prompt(node, when),
            expires_at=self.now + 300.0,
        )
        return self._note(self.narrator.ask(question, now=self.now))

    def answer(self, task_id: str, text: str = "go") -> Changes:
        asked = self.state.questions[task_id]
        return self._note(self.narrator.answer(asked, text, now=self.now, elapsed_ms=1000))

    def recover(self) -> Changes:
        """Go on as a new server does, with what is stored and nothing else."""
        self.state = RunState(self.state.plan)
        self.state.fold(self.stored)
        self.running = [node for node in self.state.ready if node in self.state.in_flight]
        self.narrator = Narrator("e1", 7, "flow", self.state, max_parallel=self.max_parallel)
        changes = self.start_ready()
        self.interrupted = self.narrator.pause().interrupted
        return changes

    def start_ready(self, after: float = 0.0) -> Changes:
        self.now += after
        return self._note(self.narrator.start_ready(now=self.now))

    def end(self, ending: Ending, failed: str | None = None) -> Changes:
        """End early; what runs or waits is stopped, *failed* by its own failure."""
        word = "cancelled" if ending.status == "cancelled" else "failed"
        stopped = {}
        for node in sorted([*self.running, *self.state.waiting], key=lambda node: node != failed):
            own = Failure(code="RuntimeError", message="no", retryable=False)
            cut = Failure(code="Cancelled", message=f"Execution {word}", retryable=False)
            stopped[node] = (self._attempt(node), own if node == failed else cut)
        return self._note(self.narrator.end(ending, stopped, now=self.now, elapsed_ms=1000))

    def told(self) -> list[str]:
        """Return the events so far as words, such as `execution_started` or `a pending`."""
        return [
            f"{event.data['node_id']} {event.data['status']}"
            if event.type == "node_status"
            else event.type
            for event in self.events
        ]

    def endings(self) -> dict[str, str]:
        return {node: result.ending for node, result in self.state.results.items()}

    def _attempt(self, node: str) -> Attempt:
        return Attempt(node_id=node, number=self.state.attempts.get(node, 0), duration_ms=5)

    def _note(self, changes: Changes) -> Changes:
        """Keep what was decided, and fold its records, as they are stored, into the mirror."""
        self.events += changes.events
        self.logs += changes.logs
        self.running += changes.started
        self.ending = changes.ending or self.ending
        self.interrupted = changes.interrupted
        for record in changes.records:
            encoded = msgspec.json.encode(msgspec.to_builtins(record))
            self.stored.append(parse_record(msgspec.json.decode(encoded)))
            self.mirror.apply(self.stored[-1])
            if record_kind(record) == "result":
                assert activation(record) not in self.done, "one result per activation"
                self.done.add(activation(record))
        return changes

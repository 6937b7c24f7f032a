"""What the retry of a run takes over from it: finished work is neither run nor billed again.

Contract: engine.md §10.8.
"""

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

import msgspec

from pipelit.engine import wire
from pipelit.engine.changes import Log
from pipelit.engine.endings import rejection
from pipelit.engine.graph import Plan
from pipelit.engine.journal import RunState
from pipelit.engine.loops import what_next
from pipelit.engine.outcome import Failure, Outcome, Report, Usage
from pipelit.engine.output import MAX_ERROR, MAX_EVENT_ERROR, visible_ports
from pipelit.engine.questions import is_confirmation, is_confirmed
from pipelit.engine.records import (
    Answered,
    Begun,
    Iterating,
    Looped,
    NodeFailed,
    NodeSucceeded,
    Record,
    Started,
)
from pipelit.engine.routing import is_handled

_BARE = Report()

Result = NodeSucceeded | NodeFailed
Activation = tuple[str, str]
"""A node and an iteration."""


class Takeover(msgspec.Struct, frozen=True):
    """Records of the run `source` that a new run begins with, in the order of their commits."""

    source: str
    records: tuple[Record, ...] = ()


def take_over(
    source: str, records: Iterable[Record], *, old: Plan, plan: Plan, from_node: str | None
) -> Takeover:
    """Choose what a new run takes over.

    Args:
        source: the run before.
        records: its journal.
        old: the graph it ran with.
        plan: the graph of the new run.
        from_node: runs again with everything downstream, as does the outermost loop around it;
            None: what did not end well.
    """
    if from_node is not None and from_node == plan.snapshot.trigger_node_id:
        return Takeover(source)
    again = set() if from_node is None else _again(plan, from_node)
    past = [
        msgspec.structs.replace(record, started=())
        for record in records
        if isinstance(record, Result | Looped | Answered)
        and record.node_id not in again
        and _is_same_node(record.node_id, old, plan)
        and _may_stand(record, plan)
    ]
    copy = _Copy(plan, past)
    copy.run()
    state = copy.state
    given = (
        answer
        for answer in past
        if isinstance(answer, Answered)
        and answer.when == "before"
        and answer.node_id not in state.results
        and answer.iteration == state.iteration_of(answer.node_id)
    )
    return Takeover(source, (*copy.taken, *given))


class _Copy:
    """Lets a new run take what it can of the records of another, as early as they came there.

    Ready is what the trigger, taken-over and skipped nodes lead to: nothing else counts. How a
    loop goes on follows from what its bodies gave; it is told anew.
    """

    def __init__(self, plan: Plan, past: Iterable[Result | Looped | Answered]) -> None:
        self.state = RunState(plan)
        self.taken: list[Record] = []
        self._plan = plan
        # {activation: its record, and its place in the old run}
        self._left: dict[Activation, tuple[int, Result | Looped]] = {}
        self._after: dict[Activation, Answered] = {}
        self._queue: list[tuple[int, Activation]] = []
        for place, record in enumerate(past):
            key = (record.node_id, record.iteration)
            if not isinstance(record, Answered):
                self._left.setdefault(key, (place, record))
            elif record.when == "after":
                self._after[key] = record

    def run(self) -> None:
        """Take all that can be taken."""
        self._offer(self.state.apply(Begun(trigger={})).ready)
        while self._queue:
            _, key = heappop(self._queue)
            _, record = self._left.pop(key)
            if isinstance(record, Result):
                record = msgspec.structs.replace(record, usage=Usage())
            self._take(record)
            if isinstance(record, NodeSucceeded):
                self._answer(key)
            self._go_round()

    def _offer(self, ready: Iterable[str]) -> None:
        """Note which of the nodes that are ready have a record."""
        keys = [(node, self.state.iteration_of(node)) for node in ready]
        found = [key for key in keys if key in self._left]
        for key in found:
            heappush(self._queue, (self._left[key][0], key))
        # They had begun when another node broke their iteration off, if one did.
        begun = tuple(node for node, _ in found if node in self._plan.loop_of)
        if begun:
            self._take(Started(nodes=begun))

    def _take(self, record: Record) -> None:
        self.taken.append(record)
        self._offer(self.state.apply(record).ready)

    def _answer(self, key: Activation) -> None:
        """Take the answer that let the successors of a node run."""
        if key[0] in self.state.held and (answer := self._after.get(key)) is not None:
            self._take(answer)

    def _go_round(self) -> None:
        """Let loops whose iteration is over go on."""
        while self.state.settled:
            loop = next(iter(self.state.settled))
            run = self.state.loops[loop]
            key = (loop, run.looped.iteration)
            match what_next(self._plan, run):
                case Iterating() as record:
                    self._take(record)
                case Outcome() as outcome:
                    outcome = msgspec.structs.replace(outcome, report=_BARE)
                    self._take(NodeSucceeded(node_id=loop, iteration=key[1], outcome=outcome))
                    self._answer(key)
                case Failure(code=code, message=message):
                    failed = NodeFailed(node_id=loop, iteration=key[1], code=code, message=message)
                    self._take(msgspec.structs.replace(failed, at=run.looped.at))


def _again(plan: Plan, from_node: str) -> set[str]:
    while (loop := plan.loop_of.get(from_node)) is not None:
        from_node = loop
    return {from_node, *plan.downstream(from_node)}


def describe(record: Record, source: str) -> tuple[Log, dict[str, Any]] | None:
    """Return the log row of a record that was taken over, and the fields of its event, if any."""
    said = {"taken_over_from": source}
    match record:
        case NodeSucceeded(node_id=node_id, outcome=outcome):
            output = visible_ports(outcome.ports)
            log = Log(node_id=node_id, status="success", output=output, metadata=said)
            fields = wire.succeeded_fields(outcome.ports, None, 0)
        case NodeFailed(node_id=node_id, message=message, code=code):
            error = message[:MAX_ERROR]
            log = Log(node_id=node_id, status="failed", error=error, error_code=code, metadata=said)
            fields = {"error": message[:MAX_EVENT_ERROR], "error_code": code, "duration_ms": 0}
            fields |= {"attempt": record.attempts - 1, "will_retry": False}
        case _:
            return None
    return log, {**fields, "taken_over": True}


def _is_same_node(node_id: str, old: Plan, plan: Plan) -> bool:
    if node_id not in old.nodes or node_id not in plan.nodes:
        return False
    return old.nodes[node_id].component_type == plan.nodes[node_id].component_type


def _may_stand(record: Result | Looped | Answered, plan: Plan) -> bool:
    """Tell whether a record lets a run go on: neither an unhandled failure nor a rejection."""
    match record:
        case NodeFailed():
            return is_handled(plan, record.node_id)
        case NodeSucceeded():
            return rejection(plan, record.node_id, record.outcome) is None
        case Answered(when="before"):
            node = plan.nodes[record.node_id]
            return not is_confirmation(node) or is_confirmed(record.text)
        case _:
            return True

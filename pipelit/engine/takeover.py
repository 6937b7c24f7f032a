"""What the retry of a run takes over from it: finished work is neither run nor billed again.

Contract: engine.md §10.8.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from pipelit.engine import wire
from pipelit.engine.changes import Log
from pipelit.engine.endings import rejection
from pipelit.engine.graph import Plan
from pipelit.engine.journal import RunState
from pipelit.engine.outcome import Usage
from pipelit.engine.output import MAX_ERROR, MAX_EVENT_ERROR, visible_ports
from pipelit.engine.questions import is_confirmation, is_confirmed
from pipelit.engine.records import Answered, Begun, NodeFailed, NodeSucceeded, Record
from pipelit.engine.routing import has_error_edge

Result = NodeSucceeded | NodeFailed


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
        from_node: runs again with everything downstream; None: what did not end well.
    """
    if from_node is not None and from_node == plan.snapshot.trigger_node_id:
        return Takeover(source)
    again = set() if from_node is None else {from_node, *plan.downstream(from_node)}
    past = tuple(records)
    left = [
        msgspec.structs.replace(record, usage=Usage(), started=())
        for record in past
        if isinstance(record, Result)
        and record.node_id not in again
        and _is_same_node(record.node_id, old, plan)
        and _may_stand(record, plan)
    ]
    answers = [msgspec.structs.replace(r, started=()) for r in past if isinstance(r, Answered)]
    after = {answer.node_id: answer for answer in answers if answer.when == "after"}
    taken: list[Record] = []
    # Ready is what the trigger, taken-over and skipped nodes lead to: nothing else counts.
    state = RunState(plan)
    state.apply(Begun(trigger={}))
    while ready := [record for record in left if record.node_id in state.ready]:
        for result in ready:
            left.remove(result)
            follows = after.get(result.node_id) if isinstance(result, NodeSucceeded) else None
            for record in (result, *([follows] if follows is not None else [])):
                state.apply(record)
                taken.append(record)
    given = (
        answer
        for answer in answers
        if answer.when == "before"
        and answer.node_id not in again
        and answer.node_id not in state.results
        and _is_same_node(answer.node_id, old, plan)
        and _lets_run(answer, plan)
    )
    return Takeover(source, (*taken, *given))


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


def _may_stand(record: Result, plan: Plan) -> bool:
    """Tell whether a result lets a run go on: neither an unhandled failure nor a rejection."""
    if isinstance(record, NodeFailed):
        return has_error_edge(plan, record.node_id)
    return rejection(plan, record.node_id, record.outcome) is None


def _lets_run(answer: Answered, plan: Plan) -> bool:
    return not is_confirmation(plan.nodes[answer.node_id]) or is_confirmed(answer.text)

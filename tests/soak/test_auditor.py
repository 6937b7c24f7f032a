"""The auditor believes a true history, and says what is wrong with each false one."""

from typing import Any

import msgspec
import pytest

from ops.soak.auditor import audit
from ops.soak.history import (
    Answered,
    Epic,
    Heard,
    History,
    Job,
    ModelCall,
    OutsideCall,
    Run,
    Seen,
    Start,
)

STARTED, ENDED = "2026-02-03T08:15:00", "2026-02-03T08:15:09"


def event(seq: int, kind: str, **data: Any) -> dict[str, Any]:
    """Return an event as the API shows it."""
    body = {"execution_id": "e1", **data}
    return {"type": kind, "channel": "execution:e1", "execution_id": "e1", "seq": seq, "data": body}


def node(seq: int, status: str, **data: Any) -> dict[str, Any]:
    """Return an event of the one node."""
    told = {"node_id": "shop", "component_type": "http_request", "status": status}
    return event(seq, "node_status", **told, **data)


def log(node_id: str, status: str, **metadata: Any) -> dict[str, Any]:
    """Return a log row."""
    return {"node_id": node_id, "status": status, "metadata": metadata or None}


USAGE = {"total_tokens": 12, "llm_calls": 1, "cost_usd": 0.00004}
EVENTS = (
    event(1, "execution_started"),
    node(2, "pending"),
    node(3, "running"),
    node(4, "failed", will_retry=True),
    node(5, "running"),
    node(6, "success"),
    event(7, "execution_completed"),
)
DETAIL: dict[str, Any] = {
    "execution_id": "e1",
    "workflow_slug": "flow",
    "status": "completed",
    "started_at": STARTED,
    "completed_at": ENDED,
    "retry_of": None,
    "total_tokens": 12,
    "total_cost_usd": 0.00004,
    "llm_calls": 1,
    "trigger_payload": {"text": "m1", "scheduled_job_id": "j1", "nominal_time": STARTED,
                        "timestamp": STARTED},
    "last_seq": 7,
    "logs": [
        log("clock", "success"),
        log("shop", "failed"),
        log("shop", "success", token_usage=USAGE),
    ],
}  # fmt: skip
JOB: dict[str, Any] = {
    "id": "j1",
    "cron": "* * * * *",
    "status": "paused",
    "next_run_at": None,
    "run_count": 1,
    "error_count": 0,
    "total_repeats": 0,
}
TRUE = History(
    starts=(Start(mark="m1", accepted=("e1", "e1")),),
    seen=(
        Seen(execution_id="e1", status="running", completed_at=None, how="list"),
        Seen(execution_id="e1", status="completed", completed_at=ENDED, how="detail"),
    ),
    heard=(
        Heard(execution_id="e1", since=0, events=EVENTS, complete=True),
        Heard(execution_id="e1", since=2, events=EVENTS[2:4], complete=False, live=True),
    ),
    runs=(Run(detail=DETAIL, events=EVENTS),),
    answered=(Answered(execution_id="e1", task_id="t1"),),
    model_calls=(ModelCall(execution_id="e1", input_tokens=10, output_tokens=2),),
    price=(2.0, 10.0),
    outside_calls=(OutsideCall(key="e1:shop:"),),
    jobs=(Job(detail=JOB, wall=ENDED),),
)


def with_run(*events: dict[str, Any], **detail: Any) -> History:
    """Return the true history with another end; nobody listened."""
    told = events or EVENTS
    changed = Run(detail={**DETAIL, "last_seq": len(told), **detail}, events=told)
    return msgspec.structs.replace(TRUE, runs=(changed,), heard=(), seen=(), jobs=())


def but(**changes: Any) -> History:
    """Return the true history with something else in it."""
    return msgspec.structs.replace(TRUE, **changes)


def family(*texts: str, waits: tuple[str, ...] = ("c0",), **detail: Any) -> History:
    """Return a parent that waits for children, and children with these texts, named c0, c1, c2."""
    waiting = event(2, "node_status", node_id="w", component_type="workflow", status="waiting",
                    child_execution_ids=list(waits))  # fmt: skip
    told = renumbered(EVENTS[0], waiting, *EVENTS[1:])
    parent = Run(detail=DETAIL | {"last_seq": 8, "trigger_payload": {}}, events=told)
    children = tuple(
        Run(
            detail=DETAIL
            | {"execution_id": f"c{number}", "trigger_payload": {"text": text}, **detail},
            events=EVENTS,
        )
        for number, text in enumerate(texts)
    )
    return but(runs=(parent, *children), heard=(), jobs=(), model_calls=None, outside_calls=None)


def handled(status: str, times: int, due: int) -> History:
    """Return a run with this end, that so many others handle."""
    failed = Run(detail=DETAIL | {"status": status, "trigger_payload": {}}, events=EVENTS)
    about = {"error": {"execution_id": "e1"}}
    handlers = tuple(
        Run(detail=DETAIL | {"execution_id": f"h{n}", "trigger_payload": about}, events=EVENTS)
        for n in range(times)
    )
    return but(runs=(failed, *handlers), heard=(), jobs=(), handlers={"flow": due})


def heard(*events: dict[str, Any], complete: bool = True, live: bool = False) -> History:
    """Return the true history as one listener heard it."""
    return but(
        heard=(Heard(execution_id="e1", since=0, events=events, complete=complete, live=live),)
    )


def renumbered(*events: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Number events from 1."""
    return tuple(one | {"seq": seq} for seq, one in enumerate(events, 1))


def test_a_true_history_is_believed():
    """Every part of it is looked at, and none is objected to."""
    assert audit(TRUE) == []


def test_usage_may_be_lost_only_where_something_ended_in_the_middle():
    """A provider bills what a dead server never wrote down."""
    billed = (*TRUE.model_calls, ModelCall(execution_id="e1", input_tokens=5, output_tokens=5))
    assert audit(but(model_calls=billed)) != []
    assert audit(but(model_calls=billed, disturbed=frozenset({"e1"}))) == []


FALSE = {
    "an accepted start is gone": (
        but(starts=(Start(mark="m9", accepted=("e9",)),)),
        "e9 was accepted (m9) and is not there",
    ),
    "a repeat starts again": (
        but(starts=(Start(mark="m1", accepted=("e1", "e2")),)),
        "repeated requests of m1 got several executions",
    ),
    "a start happens twice": (but(runs=TRUE.runs * 2), "m1 was started 2 times"),
    "a run is stuck": (with_run(*EVENTS[:-1], status="running"), "e1 is stuck: running"),
    "a terminal status changes": (
        but(seen=(Seen(execution_id="e1", status="failed", completed_at=ENDED, how="list"),)),
        "e1 was failed",
    ),
    "a cancel is undone": (but(cancelled=("e1",)), "e1 was cancelled with a 200 and is completed"),
    "numbers have a gap": (with_run(*EVENTS[:3], *EVENTS[4:]), "e1: events are numbered"),
    "the last number is wrong": (with_run(last_seq=9), "e1: last_seq 9, 7 events"),
    "something follows the end": (
        with_run(*renumbered(*EVENTS, node(8, "skipped"))),
        "e1: node_status follows its end",
    ),
    "it ends in two ways": (
        with_run(*renumbered(*EVENTS, event(8, "execution_failed"))),
        "its last words are ['execution_completed', 'execution_failed']",
    ),
    "it does not begin": (with_run(*renumbered(*EVENTS[1:])), "e1: its first event is node_status"),
    "a node has two results": (
        with_run(*renumbered(*EVENTS[:-1], node(7, "success"), EVENTS[-1])),
        "e1: shop has several results",
    ),
    "a node never ends": (
        with_run(*renumbered(*EVENTS[:3], EVENTS[-1])),
        "e1: shop never got a result",
    ),
    "a node runs unplanned": (
        with_run(*renumbered(EVENTS[0], *EVENTS[2:])),
        "e1: shop ran before it was planned",
    ),
    "a result is logged twice": (
        with_run(logs=[*DETAIL["logs"], log("shop", "success")]),
        "e1: ('shop', '') has 2 results",
    ),
    "a result is not logged": (
        with_run(logs=DETAIL["logs"][:1]),
        "e1: shop success: 1 events, 0 log rows",
    ),
    "a subscriber misses an event": (heard(*EVENTS[:2], *EVENTS[3:]), "a subscriber heard"),
    "a subscriber hears one twice": (heard(*EVENTS[:2], *EVENTS[1:]), "a subscriber heard"),
    "a subscriber hears another story": (
        heard(*EVENTS[:5], node(6, "skipped"), EVENTS[6]),
        "a subscriber heard another event 6",
    ),
    "a subscriber never hears the end": (
        heard(*EVENTS[:5], complete=False),
        "a subscriber never heard of its end: 5 of 7",
    ),
    "a bystander hears one twice": (
        heard(*EVENTS[:2], *EVENTS[1:3], complete=False, live=True),
        "a bystander heard",
    ),
    "a question is answered twice": (
        but(answered=TRUE.answered * 2),
        "e1: question t1 was answered 2 times",
    ),
    "a call is not billed": (but(model_calls=TRUE.model_calls * 2), "e1 has (1, 12, 40)"),
    "more is claimed than was billed": (
        but(model_calls=(), disturbed=frozenset({"e1"})),
        "e1 claims (1, 12, 40)",
    ),
    "totals are not the sum": (with_run(total_tokens=13), "e1: totals (13, 1, 40)"),
    "a request never went out": (but(outside_calls=()), "e1: shop succeeded without a request"),
    "a request has no key": (
        but(outside_calls=(*TRUE.outside_calls, OutsideCall(key=""))),
        "a request that changes something had no idempotency key",
    ),
    "a schedule miscounts": (
        but(jobs=(Job(detail=JOB | {"run_count": 2}, wall=ENDED),)),
        "schedule j1 counts (2, 0)",
    ),
    "a schedule fires twice": (but(runs=TRUE.runs * 2), "schedule j1 fired 2 times"),
    "a schedule is late": (
        but(jobs=(Job(detail=JOB | {"status": "active", "next_run_at": STARTED},
                      wall="2026-02-03T09:00:00"),)),
        "schedule j1 is overdue",
    ),
    "a child starts twice": (
        family("a child b", "a child b", waits=("c0", "c1")),
        "the child 'a child b' was started 2 times",
    ),
    "a child has no parent": (family("a child b", waits=()), "c0 is the child of nobody"),
    "a child is gone": (family(waits=("c0",)), "e1 waits for c0, which is not there"),
    "a child outlives its parent": (
        family("a child b", status="running"),
        "c0 outlives its parent e1",
    ),
    "a failure is not handled": (
        handled("failed", 0, due=1),
        "e1 is failed and was handled 0 times, due: 1",
    ),
    "a failure is handled twice": (
        handled("failed", 2, due=1),
        "e1 is failed and was handled 2 times, due: 1",
    ),
    "a success is handled": (
        handled("completed", 1, due=1),
        "e1 is completed and was handled 1 times, due: 0",
    ),
    "a budget is overspent": (
        but(epics=(Epic(detail={"id": "ep-1", "budget_tokens": 20, "spent_tokens": 33}),)),
        "epic ep-1 spent 33 of 20",
    ),
    "something is left": (but(leaks=("a task is left",)), "a task is left"),
    "a client saw a 500": (but(faults=("GET / was answered with 500",)), "answered with 500"),
}  # fmt: skip


@pytest.mark.parametrize(("history", "sentence"), FALSE.values(), ids=FALSE.keys())
def test_a_false_history_is_found_out(history: History, sentence: str):
    """What is said names what is wrong."""
    found = audit(history)
    assert any(sentence in said for said in found), found


def test_a_bystander_may_miss_what_a_crashed_server_lost():
    """But nothing comes twice or in another order."""
    parts = (*EVENTS[:2], *EVENTS[3:])
    missing = heard(*parts, complete=False, live=True)
    assert audit(missing) != []
    assert audit(msgspec.structs.replace(missing, live_lost=True)) == []
    assert audit(msgspec.structs.replace(missing, disturbed=frozenset({"e1"}))) == []
    again = heard(*parts, *parts[-1:], complete=False, live=True)
    assert audit(msgspec.structs.replace(again, live_lost=True)) != []


def test_two_runs_of_one_session_at_a_time_are_found_out():
    """The second one began before the first had ended."""
    logs = [log("chat_in", "success"), *DETAIL["logs"][1:]]
    payload = {"text": "m2"}
    first = Run(detail=DETAIL | {"logs": logs, "trigger_payload": payload}, events=EVENTS)
    later = {"execution_id": "e2", "started_at": "2026-02-03T08:15:03"}
    second = Run(detail=first.detail | later, events=EVENTS)
    found = audit(but(runs=(first, second), heard=(), jobs=()))
    assert "e2 started before e1 of its session had ended" in found

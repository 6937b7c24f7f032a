"""The auditor's part about events: their numbers, their order, and that all hear the same."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from ops.soak.history import TERMINAL, Heard, History, Run


def check_events(history: History) -> Iterator[str]:
    """Events are 1..n, tell a legal story, and every subscriber heard that very story."""
    runs = {run.id: run for run in history.runs}
    for run in history.runs:
        yield from _check_numbers(run)
        yield from _check_frame(run)
        yield from _check_nodes(run)
    for heard in history.heard:
        if heard.execution_id in runs:
            # An actor that ends between a commit and its publication tells nobody: who asked for a
            # replay reads it from the store, a bystander does not.
            broken_off = history.live_lost or heard.execution_id in history.disturbed
            may_miss = heard.live and broken_off
            yield from _check_heard(heard, runs[heard.execution_id], may_miss=may_miss)
        elif heard.events:
            yield f"events of {heard.execution_id} were heard, and it is not there"


def _check_numbers(run: Run) -> Iterator[str]:
    numbers = [event["seq"] for event in run.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{run.id}: events are numbered {numbers}"
    if run.detail["last_seq"] != len(numbers):
        yield f"{run.id}: last_seq {run.detail['last_seq']}, {len(numbers)} events"


def _check_frame(run: Run) -> Iterator[str]:
    """Check the first event, the last one, and that it is what became of the execution."""
    types = [event["type"] for event in run.events]
    ends = [kind for kind in types if _is_end(kind)]
    if types and types[0] != "execution_started" and types != ["execution_cancelled"]:
        yield f"{run.id}: its first event is {types[0]}"
    if types.count("execution_started") > 1:
        yield f"{run.id}: it started {types.count('execution_started')} times"
    if run.status in TERMINAL:
        if ends != [f"execution_{run.status}"]:
            yield f"{run.id}: it is {run.status}, its last words are {ends}"
        elif not _is_end(types[-1]):
            yield f"{run.id}: {types[-1]} follows its end"
    elif ends:
        yield f"{run.id}: it is {run.status} after {ends}"


def _check_nodes(run: Run) -> Iterator[str]:
    stories: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in run.events:
        data = event["data"]
        if event["type"] == "node_status" and not data.get("is_tool_call"):
            stories[data["node_id"], str(data.get("iteration", ""))].append(data)
    for (node_id, _), story in stories.items():
        told = [_word(data) for data in story]
        results = [word for word in told if word in {"success", "failed", "skipped"}]
        if len(results) > 1:
            yield f"{run.id}: {node_id} has several results: {told}"
        elif run.status in TERMINAL and not results:
            yield f"{run.id}: {node_id} never got a result: {told}"
        elif results and told[-1] != results[0]:
            yield f"{run.id}: {node_id} went on after its result: {told}"
        if "pending" in told[1:]:
            yield f"{run.id}: {node_id} was planned twice: {told}"
        if "running" in told and told[0] != "pending":
            yield f"{run.id}: {node_id} ran before it was planned: {told}"


def _word(data: dict[str, Any]) -> str:
    return "retrying" if data.get("will_retry") else str(data["status"])


def _check_heard(heard: Heard, run: Run, *, may_miss: bool) -> Iterator[str]:
    who = "a bystander" if heard.live else "a subscriber"
    numbers = [event["seq"] for event in heard.events]
    due = list(range(heard.since + 1, heard.since + 1 + len(numbers)))
    if numbers != (sorted({*numbers}) if may_miss else due):
        yield f"{run.id}: {who} heard {numbers} after {heard.since}"
    stored = {event["seq"]: event for event in run.events}
    for event in heard.events:
        if _content(event) != _content(stored.get(event["seq"], {})):
            yield f"{run.id}: {who} heard another event {event['seq']} than is stored"
    if run.status in TERMINAL and not heard.live and not heard.complete:
        yield f"{run.id}: {who} never heard of its end: {_last(numbers)} of {len(run.events)}"


def _content(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "channel"}


def _is_end(kind: str) -> bool:
    return kind.removeprefix("execution_") in TERMINAL and kind.startswith("execution_")


def _last(numbers: Sequence[int]) -> int:
    return numbers[-1] if numbers else 0

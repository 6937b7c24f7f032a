"""Judges a server by what somebody outside saw of it. Knows nothing of how it works.

`audit` returns one sentence for each promise that a history breaks. Contract: engine.md §7–§12,
§15–§18, §25, §26, websocket.md, executions.md, schedules.md.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from ops.soak.audit_events import check_events
from ops.soak.audit_families import check_budgets, check_children, check_handlers
from ops.soak.history import TERMINAL, History, Job, ModelCall, Run

Check: TypeAlias = Callable[[History], Iterator[str]]


def audit(history: History) -> list[str]:
    """Return what *history* breaks, one sentence each; nothing if every promise was kept."""
    return [sentence for check in CHECKS for sentence in check(history)]


def check_accepted(history: History) -> Iterator[str]:
    """What was acknowledged is there, once, however often it was asked for."""
    ids = {run.id for run in history.runs}
    marks = Counter(
        str((run.detail["trigger_payload"] or {}).get("text"))
        if "payload" not in (run.detail["trigger_payload"] or {})
        else str(run.detail["trigger_payload"]["payload"].get("text"))
        for run in history.runs
        if run.detail["retry_of"] is None
    )
    for start in history.starts:
        for execution_id in sorted({*start.accepted} - ids):
            yield f"{execution_id} was accepted ({start.mark}) and is not there"
        if len({*start.accepted}) > 1:
            yield f"repeated requests of {start.mark} got several executions: {start.accepted}"
        if marks[start.mark] > 1:
            yield f"{start.mark} was started {marks[start.mark]} times"


def check_ended(history: History) -> Iterator[str]:
    """Nothing is stuck."""
    for run in history.runs:
        if run.status not in TERMINAL:
            yield f"{run.id} is stuck: {run.status}"


def check_final(history: History) -> Iterator[str]:
    """A terminal execution never changes."""
    runs = {run.id: run for run in history.runs}
    for seen in history.seen:
        run = runs.get(seen.execution_id)
        if run is None or seen.status not in TERMINAL:
            continue
        now = (run.status, run.detail["completed_at"])
        if now != (seen.status, seen.completed_at):
            yield f"{run.id} was {seen.status} at {seen.completed_at} ({seen.how}), now {now}"
    for execution_id in history.cancelled:
        if execution_id in runs and runs[execution_id].status != "cancelled":
            yield f"{execution_id} was cancelled with a 200 and is {runs[execution_id].status}"


def check_logs(history: History) -> Iterator[str]:
    """The log has each result once, and the events tell the same story."""
    for run in history.runs:
        logs = [log for log in run.detail["logs"] if log["node_id"] not in _triggers(run)]
        results = Counter(_activation(log) for log in logs if log["status"] == "success")
        for activation, count in results.items():
            if count > 1:
                yield f"{run.id}: {activation} has {count} results"
        told = Counter(
            (event["data"]["node_id"], event["data"]["status"])
            for event in run.events
            if event["type"] == "node_status"
            and event["data"]["status"] in {"success", "failed", "skipped"}
            and not event["data"].get("is_tool_call")
        )
        logged = Counter((log["node_id"], log["status"]) for log in logs)
        for node_id, status in sorted(told.keys() | logged.keys()):
            if told[node_id, status] != logged[node_id, status]:
                yield (
                    f"{run.id}: {node_id} {status}: {told[node_id, status]} events, "
                    f"{logged[node_id, status]} log rows"
                )


def check_questions(history: History) -> Iterator[str]:
    """A question is answered at most once."""
    counts = Counter((answer.execution_id, answer.task_id) for answer in history.answered)
    for (execution_id, task_id), count in counts.items():
        if count > 1:
            yield f"{execution_id}: question {task_id} was answered {count} times"


def check_sessions(history: History) -> Iterator[str]:
    """Chat executions of one session run one at a time."""
    if history.clock_jumped:
        return
    sessions: dict[str, list[Run]] = defaultdict(list)
    for run in history.runs:
        asked = any(event["type"] == "execution_interrupted" for event in run.events)
        if _triggers(run) == {"chat_in"} and run.detail["started_at"] and not asked:
            sessions[run.detail["workflow_slug"]].append(run)
    for runs in sessions.values():
        runs.sort(key=lambda run: str(run.detail["started_at"]))
        for one, next_one in pairwise(runs):
            if str(one.detail["completed_at"]) > str(next_one.detail["started_at"]):
                yield f"{next_one.id} started before {one.id} of its session had ended"


def check_money(history: History) -> Iterator[str]:
    """Totals are the sum of what the provider billed, and of the log."""
    calls: dict[str, list[ModelCall]] = defaultdict(list)
    for call in history.model_calls or ():
        calls[call.execution_id].append(call)
    for run in history.runs:
        yield from _check_log_sums(run)
        if history.model_calls is None:
            continue
        billed = calls[run.id]
        tokens = sum(call.input_tokens + call.output_tokens for call in billed)
        micros = sum(_micros(call, history.price) for call in billed)
        total, cost = run.detail["total_tokens"], round(run.detail["total_cost_usd"] * 1_000_000)
        stated = (run.detail["llm_calls"], total, cost)
        if run.id in history.disturbed:
            # One call may have been begun and ended before it reached the provider.
            if any(s > b for s, b in zip(stated, (len(billed) + 1, tokens, micros), strict=True)):
                yield f"{run.id} claims {stated}, billed were {(len(billed), tokens, micros)}"
        elif stated != (len(billed), tokens, micros):
            yield f"{run.id} has {stated}, billed were {(len(billed), tokens, micros)}"


def _check_log_sums(run: Run) -> Iterator[str]:
    sums: Counter[str] = Counter()
    for log in run.detail["logs"]:
        usage = (log["metadata"] or {}).get("token_usage") or {}
        sums["total_tokens"] += usage.get("total_tokens", 0)
        sums["llm_calls"] += usage.get("llm_calls", 0)
        sums["micros"] += round(usage.get("cost_usd", 0) * 1_000_000)
    stated = (
        run.detail["total_tokens"],
        run.detail["llm_calls"],
        round(run.detail["total_cost_usd"] * 1_000_000),
    )
    logged = (sums["total_tokens"], sums["llm_calls"], sums["micros"])
    if run.status in TERMINAL and stated != logged:
        yield f"{run.id}: totals {stated}, sum of its log {logged}"


def check_effects(history: History) -> Iterator[str]:
    """A committed request really went out, and each under one key."""
    if history.outside_calls is None:
        return
    keys = {call.key.rpartition(":")[0] for call in history.outside_calls}
    for call in history.outside_calls:
        if not call.key:
            yield "a request that changes something had no idempotency key"
    for run in history.runs:
        for event in run.events:
            data = event["data"]
            if (
                event["type"] == "node_status"
                and data["status"] == "success"
                and data["component_type"] == "http_request"
                and not data.get("is_tool_call")
                and not data.get("taken_over")
                and f"{run.id}:{data['node_id']}" not in keys
            ):
                yield f"{run.id}: {data['node_id']} succeeded without a request"


def check_schedules(history: History) -> Iterator[str]:
    """Every tick has one run and every run one outcome."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in history.runs:
        job_id = (run.detail["trigger_payload"] or {}).get("scheduled_job_id")
        if job_id is not None and run.detail["retry_of"] is None:
            runs[job_id].append(run)
    for job in history.jobs:
        yield from _check_job(job, runs[job.detail["id"]], jumped=history.clock_jumped)


def _check_job(job: Job, runs: Sequence[Run], *, jumped: bool) -> Iterator[str]:
    detail, ended = job.detail, Counter(run.status for run in runs)
    name = f"schedule {detail['id']}"
    times = Counter(run.detail["trigger_payload"]["nominal_time"] for run in runs)
    for time, count in times.items():
        if count > 1:
            yield f"{name} fired {count} times for {time}"
        if detail["cron"] == "* * * * *" and not time.endswith(":00"):
            yield f"{name} fired for {time}, which its pattern does not match"
    for run in runs:
        payload = run.detail["trigger_payload"]
        if not jumped and payload["timestamp"] < payload["nominal_time"]:
            yield f"{name} fired at {payload['timestamp']}, before {payload['nominal_time']}"
    counted = (detail["run_count"], detail["error_count"])
    if counted != (ended["completed"], ended["failed"]):
        yield f"{name} counts {counted}, its runs are {dict(ended)}"
    if detail["status"] == "active" and not jumped and detail["next_run_at"] < job.wall[:16]:
        yield f"{name} is overdue since {detail['next_run_at']}"
    # A run that waits for a person holds nothing up, so the job may start more than it will need.
    asked = any(e["type"] == "execution_interrupted" for run in runs for e in run.events)
    repeats = detail["total_repeats"]
    if repeats and not asked and len(runs) - ended["failed"] > repeats:
        yield f"{name} ran {len(runs)} times of {repeats}"


def check_rest(history: History) -> Iterator[str]:
    """Nothing is left over, and no client saw what none may see."""
    yield from history.leaks
    yield from history.faults


CHECKS: tuple[Check, ...] = (
    check_accepted,
    check_ended,
    check_final,
    check_events,
    check_logs,
    check_questions,
    check_sessions,
    check_money,
    check_effects,
    check_children,
    check_handlers,
    check_budgets,
    check_schedules,
    check_rest,
)


def _triggers(run: Run) -> set[str]:
    """Return the trigger's node: its log row is the first, and it has no events."""
    return {log["node_id"] for log in run.detail["logs"][:1] if run.detail["started_at"]}


def _activation(log: dict[str, Any]) -> tuple[str, str]:
    return log["node_id"], str((log["metadata"] or {}).get("iteration", ""))


def _micros(call: ModelCall, price: tuple[float, float]) -> int:
    """Return the bill for one call in micro-dollars, rounded half up."""
    return int(call.input_tokens * price[0] + call.output_tokens * price[1] + 0.5)

"""The auditor's part about runs that cause others: children, handlers of failures, and epics.

Contract: engine.md §15, §17, §25.
"""

from collections import Counter
from collections.abc import Iterator

from ops.soak.history import TERMINAL, History, Run

CHILD = " child "
"""In the text of every child, which no two children share."""


def check_children(history: History) -> Iterator[str]:
    """Each child is started once, by one parent, and does not outlive it."""
    runs = {run.id: run for run in history.runs}
    texts = Counter(_text(run) for run in history.runs if run.detail["retry_of"] is None)
    for text, count in texts.items():
        if CHILD in text and count > 1:
            yield f"the child '{text}' was started {count} times"
    parents = _parents(history)
    for run in history.runs:
        for child_id in sorted(_children(run)):
            if child_id not in runs:
                yield f"{run.id} waits for {child_id}, which is not there"
            elif run.status in TERMINAL and runs[child_id].status not in TERMINAL:
                yield f"{child_id} outlives its parent {run.id}"
    for run in history.runs:
        is_child = CHILD in _text(run) and run.detail["retry_of"] is None
        if is_child and not _is_handler(run) and run.id not in parents:
            yield f"{run.id} is the child of nobody"


def check_handlers(history: History) -> Iterator[str]:
    """Each failure is handled as often as its workflow says, and nothing else is."""
    if history.handlers is None:
        return
    handled = Counter(
        run.detail["trigger_payload"]["error"]["execution_id"]
        for run in history.runs
        if _is_handler(run) and run.detail["retry_of"] is None
    )
    parents = _parents(history)
    quiet = {run.id for run in history.runs if _is_handler(run)}
    while (
        more := {
            run.id for run in history.runs if {parents.get(run.id), run.detail["retry_of"]} & quiet
        }
        - quiet
    ):
        quiet |= more  # what belongs to a handler is not handled itself
    for run in history.runs:
        wanted = history.handlers.get(run.detail["workflow_slug"], 0)
        due = wanted if run.status == "failed" and run.id not in quiet else 0
        if handled[run.id] != due:
            yield f"{run.id} is {run.status} and was handled {handled[run.id]} times, due: {due}"


def check_budgets(history: History) -> Iterator[str]:
    """No epic spends more than its budget and one call."""
    calls = history.model_calls or ()
    one = max((call.input_tokens + call.output_tokens for call in calls), default=0)
    for epic in history.epics:
        budget, spent = epic.detail["budget_tokens"], epic.detail["spent_tokens"]
        if budget is not None and spent > budget + one:
            yield f"epic {epic.detail['id']} spent {spent} of {budget}, with {one} in one call"


def _text(run: Run) -> str:
    return str((run.detail["trigger_payload"] or {}).get("text"))


def _children(run: Run) -> set[str]:
    waits = (event["data"] for event in run.events if event["type"] == "node_status")
    return {child_id for data in waits for child_id in data.get("child_execution_ids", ())}


def _parents(history: History) -> dict[str, str]:
    return {child_id: run.id for run in history.runs for child_id in _children(run)}


def _is_handler(run: Run) -> bool:
    return isinstance((run.detail["trigger_payload"] or {}).get("error"), dict)

"""Why runs end before their time: failures, refusals, rejections.

Contract: engine.md §11.1, §11.3, §16.4–16.5, node-types.md 10.7.
"""

import msgspec

from pipelit.engine.budget import EXCEEDED, UNKNOWN_PRICE
from pipelit.engine.changes import Attempt, Changes, Ending
from pipelit.engine.graph import Plan
from pipelit.engine.journal import RunState
from pipelit.engine.outcome import Failure, Outcome, Report
from pipelit.engine.output import MAX_ERROR, final_output
from pipelit.engine.questions import is_confirmation, judge, rejection_ends
from pipelit.engine.records import Asked, Started

_FATAL = frozenset({EXCEEDED, UNKNOWN_PRICE})


def completed(state: RunState) -> Ending:
    """Return how a run ends that has nothing left to do (engine.md §7.4)."""
    try:
        return Ending(status="completed", final_output=final_output(state))
    except Exception as error:  # noqa: BLE001  # a defect: the run fails of it, and at once
        text = f"Finalization error: {error}"
        return Ending(
            status="failed", error_message=text[:MAX_ERROR], error_code="FinalizationError"
        )


def skip_reason(plan: Plan, node_id: str, ending: Ending) -> str:
    """Return why a node has no result that the early end of its run leaves behind."""
    if ending.status == "cancelled":
        return "execution cancelled"
    if ending.failed_node and node_id in plan.downstream(ending.failed_node):
        return "Upstream node failed"
    return "execution failed"


def ends_run(failure: Failure) -> bool:
    """Tell whether a node's failure is the run's: nothing handles it, nothing tries again."""
    return failure.code in _FATAL and not failure.retryable


def failed_by(attempt: Attempt, failure: Failure) -> Ending:
    """Return how a run ends whose node has failed for good."""
    text = f"Node {attempt.node_id} failed: {failure.message}"
    if ends_run(failure):
        text = failure.message
    return Ending(
        status="failed",
        error_message=text[:MAX_ERROR],
        error_code=failure.code,
        failed_node=attempt.node_id,
    )


def over_budget(problem: str) -> Ending:
    """Return how a run ends whose next nodes no budget pays for."""
    return Ending(status="failed", error_message=problem, error_code=EXCEEDED)


def refuse_start(state: RunState, changes: Changes) -> Changes:
    """Return a step without the nodes that it starts; they are only ready in *state* then."""
    state.started.difference_update(changes.started)
    kept = (record for record in changes.records if not isinstance(record, Started))
    return msgspec.structs.replace(
        changes,
        records=tuple(
            msgspec.structs.replace(record, started=()) if hasattr(record, "started") else record
            for record in kept
        ),
        # A loop tells of its next iteration with the same word: that has begun.
        events=tuple(
            event
            for event in changes.events
            if event.data.get("status") != "running"
            or event.data.get("node_id") not in changes.started
        ),
        started=(),
    )


def refusal(plan: Plan, asked: Asked, answer: str | None) -> Ending | None:
    """Return how the answer to a flag's question ends the run; None: it goes on.

    `answer` None: nobody answered in time.
    """
    match judge(plan.nodes[asked.node_id], asked.when, answer):
        case "expired":
            return Ending(
                status="cancelled",
                error_message=f"Confirmation expired at node '{asked.node_id}'",
                error_code="ConfirmationExpired",
            )
        case "refused":
            return Ending(status="cancelled")
        case "go_on":
            return None


def rejection(plan: Plan, node_id: str, outcome: Outcome) -> Ending | None:
    """Return how a confirmation's result ends the run; None: it goes on."""
    rejected = outcome.ports.get("confirmed") is False and is_confirmation(plan.nodes[node_id])
    if not (rejected and rejection_ends(plan, node_id)):
        return None
    return Ending(
        status="cancelled",
        error_message=f"Rejected at '{node_id}'",
        error_code="ConfirmationRejected",
    )


def stopped_by(ending: Ending, report: Report = Report()) -> Failure:  # noqa: B008 - frozen
    """Return the failure of a node that the end of its execution stopped (engine.md §11.3)."""
    word = "cancelled" if ending.status == "cancelled" else "failed"
    return Failure(code="Cancelled", message=f"Execution {word}", retryable=False, report=report)

"""The `error_handler` node: says what failed before it. node-types.md 10.10, engine.md §17."""

from typing import Any

from pipelit.engine.instants import instant_text
from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import NodeCall


async def error_handler(call: NodeCall) -> Outcome:
    """Report the first failure that was committed; the others are listed in it."""
    results: dict[str, Any] = call.state["node_results"]
    failures = [
        _describe(call, result["error"])
        for node_id, result in results.items()  # in the order of their commits
        if node_id in call.predecessors and result["error"] is not None
    ]
    first, *others = failures
    error = {**first, "others": others}
    return Outcome(
        ports={
            "error": error,
            "message": error["message"],
            "error_code": error["error_code"],
            "failed_node": error["source_node_id"],
        }
    )


def _describe(call: NodeCall, error: dict[str, Any]) -> dict[str, Any]:
    details = error["details"]
    return {
        "message": error["message"],
        "error_code": error["code"],
        "source_node_id": error["node_id"],
        "source_node_type": details["component_type"],
        "execution_id": call.identity.execution_id,
        "workflow_slug": call.identity.workflow_slug,
        "timestamp": instant_text(details["at"]),
        "stack_trace": "",
        "attempts": details["attempts"],
    }

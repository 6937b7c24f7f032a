"""Executions that are tried again. Contract: executions.md "retry"."""

from typing import Literal

from pipelit.services.executions import ExecutionView
from pipelit.services.retries import Retries
from pipelit.web.call import Call
from pipelit.web.models import RequestModel
from pipelit.web.routes.executions import NOT_FOUND
from pipelit.web.routing import Auth, Example, Refuses, Route


class RetryIn(RequestModel):
    """What runs again, and in which graph. `from_node` null: what failed or was stopped."""

    from_node: str | None = None
    graph: Literal["snapshot", "current"] = "snapshot"


async def retry(call: Call[RetryIn]) -> ExecutionView:
    """Start an execution that takes over the finished part of another one."""
    return await call.service(Retries).retry(
        call.principal,
        call.path.text("execution_id"),
        from_node=call.body.from_node,
        graph=call.body.graph,
    )


_OLD = "5b0f2f7e-6f0b-4c55-9a0e-0d3a5f1c9b21"

ROUTES = (
    Route(
        "POST",
        "/executions/{execution_id}/retry/",
        retry,
        auth=Auth.BEARER,
        section="executions",
        summary="Start an execution that takes over the finished part of a failed one.",
        body=RetryIn,
        body_optional=True,
        status=201,
        response=ExecutionView,
        refuses=(
            NOT_FOUND,
            Refuses(404, "Workflow not found.", "it was deleted"),
            Refuses(404, "Node not found.", "`from_node` or the trigger is not in the graph"),
            Refuses(
                409,
                "Cannot retry execution with status '<status>'.",
                "it is neither failed nor cancelled",
            ),
            Refuses(400, "Workflow is inactive.", "`is_active` is false"),
            Refuses(503, "Failed to enqueue workflow execution.", "the engine takes no work"),
        ),
        examples=(
            Example(
                path=f"/api/v1/executions/{_OLD}/retry/",
                body={"from_node": None},
                status=201,
                response={
                    "execution_id": "c7a4b0de-2f55-4f0c-8a39-64d8a1e0b7f2",
                    "workflow_slug": "invoice-triage",
                    "status": "pending",
                    "error_message": "",
                    "error_code": None,
                    "started_at": None,
                    "completed_at": None,
                    "total_tokens": 0,
                    "total_cost_usd": 0.0,
                    "llm_calls": 0,
                    "retry_of": _OLD,
                },
            ),
        ),
    ),
)

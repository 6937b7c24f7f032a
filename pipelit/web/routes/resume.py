"""Executions that go on: answers to their questions. Contract: beyond.md §3."""

from typing import Annotated

from pydantic import Field

from pipelit.services.confirmations import Confirmations
from pipelit.services.executions import ExecutionView
from pipelit.web.call import Call
from pipelit.web.models import RequestModel
from pipelit.web.routes.executions import NOT_FOUND
from pipelit.web.routing import Auth, Example, Refuses, Route

MAX_ANSWER = 4000


class ResumeIn(RequestModel):
    """An answer. `task_id`: which question; null: the oldest open one."""

    input: Annotated[str, Field(max_length=MAX_ANSWER)]
    task_id: str | None = None


async def resume(call: Call[ResumeIn]) -> ExecutionView:
    """Answer an open question of an execution."""
    return await call.service(Confirmations).answer(
        call.principal, call.path.text("execution_id"), call.body.input, call.body.task_id
    )


_SHOWN = {
    "execution_id": "9d1c0f6e-3a55-4a0e-9a1d-6f0b5b0f2f7e",
    "workflow_slug": "pay-invoices",
    "status": "running",
    "error_message": "",
    "error_code": None,
    "started_at": "2026-02-03T09:04:58.220100",
    "completed_at": None,
    "total_tokens": 0,
    "total_cost_usd": 0.0,
    "llm_calls": 0,
    "retry_of": None,
}

ROUTES = (
    Route(
        "POST",
        "/executions/{execution_id}/resume/",
        resume,
        auth=Auth.BEARER,
        section="executions",
        summary="Answer an open question of an execution.",
        body=ResumeIn,
        response=ExecutionView,
        refuses=(
            NOT_FOUND,
            Refuses(
                400,
                "Cannot resume execution with status '<status>'.",
                "no question is open",
            ),
            Refuses(
                409,
                "Confirmation '<task_id>' is not pending.",
                "the question was answered, has expired or is another execution's",
            ),
        ),
        examples=(
            Example(
                path=f"/api/v1/executions/{_SHOWN['execution_id']}/resume/",
                body={"input": "yes", "task_id": "c41f09ab"},
                response=_SHOWN,
            ),
        ),
    ),
)

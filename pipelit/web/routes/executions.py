"""Executions and their events. Contract: executions.md, beyond.md §1, §2."""

from typing import Annotated, Any, Literal

import msgspec
import trio
from pydantic import Field

from pipelit.services.executions import (
    EventPage,
    ExecutionDetailView,
    ExecutionsService,
    ExecutionStatus,
    ExecutionView,
)
from pipelit.services.live import LiveFeed
from pipelit.web.call import Call
from pipelit.web.models import (
    MAX_PAGE,
    BatchKeys,
    FreeObject,
    IdempotencyHeaders,
    IntegerText,
    ListQuery,
    LongText,
    QueryModel,
    RequestModel,
)
from pipelit.web.responses import Page, Response, StreamResponse
from pipelit.web.routes.chat import NO_WORKFLOW
from pipelit.web.routes.repeat import REPLAYED, answer, repeatable
from pipelit.web.routes.shown import EXECUTION
from pipelit.web.routing import Auth, Example, Refuses, Route
from pipelit.web.ws.sse import sse_response, start_after, wants_stream

Status = Literal["pending", "running", "interrupted", "completed", "failed", "cancelled"]

NOT_FOUND = Refuses(404, "Execution not found.", "no such execution, or not visible")


class Stopping:
    """Set when the server begins to stop. A class of its own so that handlers can ask for it."""

    def __init__(self, event: trio.Event) -> None:
        self.event = event


class ExecutionsQuery(ListQuery):
    """Filters of the list."""

    workflow_slug: str | None = None
    status: Status | None = None


class EventsQuery(QueryModel):
    """`since`: only events with a higher `seq`. The next page is `since` = the last `seq`."""

    since: Annotated[int, IntegerText(0)] = 0
    limit: Annotated[int, IntegerText(0, MAX_PAGE)] = 50


class ExecuteIn(RequestModel):
    """A manual run."""

    text: LongText = ""
    trigger_node_id: str | None = None
    payload: FreeObject = Field(default_factory=dict)


class DeleteExecutions(RequestModel):
    """Executions to delete."""

    execution_ids: BatchKeys


class ExecuteOut(msgspec.Struct, frozen=True):
    """The execution that was started."""

    execution_id: str
    status: str


async def list_executions(call: Call[None, ExecutionsQuery]) -> Page[ExecutionView]:
    """List executions, newest start first."""
    query = call.query
    items, total = await call.service(ExecutionsService).list_page(
        call.principal,
        workflow_slug=query.workflow_slug,
        status=query.status,
        limit=query.limit,
        offset=query.offset,
    )
    return Page(items=items, total=total)


async def get_execution(call: Call) -> ExecutionDetailView:
    """Return one execution with results and logs."""
    return await call.service(ExecutionsService).get(call.principal, _id(call))


async def get_status(call: Call) -> ExecutionStatus:
    """Return the short form."""
    return await call.service(ExecutionsService).get_status(call.principal, _id(call))


async def get_events(
    call: Call[None, EventsQuery],
) -> EventPage | Response | StreamResponse:
    """Return stored events as JSON, or as a server-sent event stream that goes on live."""
    service, query = call.service(ExecutionsService), call.query
    if not wants_stream(call.raw_headers.get("accept", "")):
        return await service.events(call.principal, _id(call), since=query.since, limit=query.limit)
    await service.require_visible(call.principal, _id(call))
    after = start_after(call.raw_headers.get("last-event-id"), query.since)
    return await sse_response(
        call.service(LiveFeed),
        call.principal,
        _id(call),
        after,
        stopping=call.service(Stopping).event,
    )


async def cancel(call: Call) -> ExecutionView:
    """Cancel an execution; answers when everything in it is gone."""
    return await call.service(ExecutionsService).cancel(call.principal, _id(call))


async def delete_many(call: Call[DeleteExecutions]) -> None:
    """Delete those of the executions that the caller may see."""
    await call.service(ExecutionsService).delete_many(call.principal, call.body.execution_ids)


async def execute(call: Call[ExecuteIn, None, IdempotencyHeaders]) -> Response:
    """Start a workflow from its manual trigger."""
    started = await call.service(ExecutionsService).run(
        call.principal,
        call.path.text("slug"),
        text=call.body.text,
        payload=call.body.payload,
        trigger_node_id=call.body.trigger_node_id,
        request=repeatable(call, "execute"),
    )
    return answer(started)


def _id(call: Call[Any, Any, Any]) -> str:
    return call.path.text("execution_id")


_PATH = f"/api/v1/executions/{EXECUTION['execution_id']}"
_DETAIL = {
    **EXECUTION,
    "final_output": None,
    "trigger_payload": {"text": "pay invoice 118"},
    "last_seq": 19,
    "pending_confirmations": [],
    "logs": [
        {
            "id": 901,
            "node_id": "trigger_chat_1",
            "status": "success",
            "input": None,
            "output": {"text": "pay invoice 118"},
            "error": "",
            "error_code": None,
            "metadata": None,
            "duration_ms": 1,
            "timestamp": "2026-02-03T09:00:00.102000",
        }
    ],
}
_STATUS = {
    "execution_id": EXECUTION["execution_id"],
    "workflow": EXECUTION["workflow_slug"],
    "status": EXECUTION["status"],
    "started_at": EXECUTION["started_at"],
    "completed_at": EXECUTION["completed_at"],
    "final_output": None,
    "error_message": EXECUTION["error_message"],
}
_EVENTS = {
    "items": [
        {
            "type": "execution_failed",
            "channel": f"execution:{EXECUTION['execution_id']}",
            "seq": 19,
            "timestamp": 1770109207.480221,
            "execution_id": EXECUTION["execution_id"],
            "data": {
                "execution_id": EXECUTION["execution_id"],
                "node_id": "agent_1",
                "error": EXECUTION["error_message"],
                "error_code": EXECUTION["error_code"],
            },
        }
    ],
    "total": 1,
    "last_seq": 19,
}

ROUTES = (
    Route(
        "GET",
        "/executions/",
        list_executions,
        auth=Auth.BEARER,
        section="executions",
        summary="List executions, newest start first.",
        query=ExecutionsQuery,
        response=Page[ExecutionView],
        examples=(
            Example(
                path="/api/v1/executions/?workflow_slug=invoice-triage&status=failed&limit=1",
                response={"items": [EXECUTION], "total": 3},
            ),
        ),
    ),
    Route(
        "GET",
        "/executions/{execution_id}/",
        get_execution,
        auth=Auth.BEARER,
        section="executions",
        summary="Show one execution with its results and logs.",
        response=ExecutionDetailView,
        refuses=(NOT_FOUND,),
        examples=(Example(path=f"{_PATH}/", response=_DETAIL),),
    ),
    Route(
        "GET",
        "/executions/{execution_id}/status/",
        get_status,
        auth=Auth.BEARER,
        section="executions",
        summary="Show the status of one execution.",
        response=ExecutionStatus,
        refuses=(NOT_FOUND,),
        examples=(Example(path=f"{_PATH}/status/", response=_STATUS),),
    ),
    Route(
        "GET",
        "/executions/{execution_id}/events/",
        get_events,
        auth=Auth.BEARER,
        section="executions",
        summary="Return the stored events of one execution, or stream them.",
        description=(
            "With `Accept: text/event-stream` the answer is a server-sent event stream from "
            "`since` or `Last-Event-ID` on; 204 when the execution has ended and nothing is left."
        ),
        query=EventsQuery,
        response=EventPage,
        also={204: None},
        media="text/event-stream",
        refuses=(NOT_FOUND,),
        examples=(Example(path=f"{_PATH}/events/?since=18&limit=1", response=_EVENTS),),
    ),
    Route(
        "POST",
        "/executions/{execution_id}/cancel/",
        cancel,
        auth=Auth.BEARER,
        section="executions",
        summary="Cancel an execution.",
        description="Idempotent: a terminal execution is returned unchanged.",
        response=ExecutionView,
        refuses=(NOT_FOUND,),
        examples=(Example(path=f"{_PATH}/cancel/", response=EXECUTION),),
    ),
    Route(
        "POST",
        "/executions/batch-delete/",
        delete_many,
        auth=Auth.BEARER,
        section="executions",
        summary="Delete several executions for good; active ones are cancelled first.",
        description="Those that do not exist or are not visible are skipped.",
        body=DeleteExecutions,
        status=204,
        examples=(
            Example(
                path="/api/v1/executions/batch-delete/",
                body={"execution_ids": [EXECUTION["execution_id"]]},
                status=204,
            ),
        ),
    ),
    Route(
        "POST",
        "/workflows/{slug}/execute/",
        execute,
        auth=Auth.BEARER,
        section="executions",
        summary="Start a workflow from its manual trigger.",
        description=REPLAYED,
        body=ExecuteIn,
        body_optional=True,
        headers=IdempotencyHeaders,
        response=ExecuteOut,
        refuses=(
            NO_WORKFLOW,
            Refuses(404, "Manual trigger node not found", "the named one is not there or inactive"),
            Refuses(404, "No trigger configured for manual execution", "none is active"),
            Refuses(
                409,
                "Idempotency-Key was already used with a different request.",
                "another body or endpoint was sent with this key",
            ),
            Refuses(503, "Failed to enqueue workflow execution.", "the engine takes no work"),
        ),
        examples=(
            Example(
                path="/api/v1/workflows/invoice-triage/execute/",
                body={},
                response={
                    "execution_id": "2d0b2a55-8a83-4a54-8f0c-7b2f5f1f0c7e",
                    "status": "pending",
                },
            ),
        ),
    ),
)

"""The schedule actions of a `trigger_schedule` node. Contract: nodes.md "Schedule actions"."""

from pipelit.services.canvas_views import Node
from pipelit.services.node_schedules import NO_JOB, NOT_A_SCHEDULE, NodeSchedulesService
from pipelit.services.schedules import LIMIT_REACHED, cannot
from pipelit.web.call import Call
from pipelit.web.routes.nodes import NO_NODE
from pipelit.web.routes.shown import TIMER
from pipelit.web.routes.workflows import NO_WORKFLOW, NOT_CHANGEABLE
from pipelit.web.routing import Auth, Example, Refuses, Route


async def start(call: Call) -> Node:
    """Start the node's job."""
    return await call.service(NodeSchedulesService).start(
        call.principal, call.path.text("slug"), call.path.text("node_id")
    )


async def pause(call: Call) -> Node:
    """Pause the node's job."""
    return await call.service(NodeSchedulesService).pause(
        call.principal, call.path.text("slug"), call.path.text("node_id")
    )


async def stop(call: Call) -> Node:
    """Stop the node's job."""
    return await call.service(NodeSchedulesService).stop(
        call.principal, call.path.text("slug"), call.path.text("node_id")
    )


_PLACE = (NO_WORKFLOW, NO_NODE, NOT_CHANGEABLE)
_WRONG_TYPE = Refuses(400, NOT_A_SCHEDULE, "the node is of another type")
_NO_JOB = Refuses(404, NO_JOB, "the node has no job")
_PATH = "/api/v1/workflows/invoice-triage/nodes/nightly/schedule/"
_PAUSED = {
    **TIMER,
    "config": {**TIMER["config"], "is_active": False},
    "schedule_job": {**TIMER["schedule_job"], "status": "paused", "next_run_at": None},
}

ROUTES = (
    Route(
        "POST",
        "/workflows/{slug}/nodes/{node_id}/schedule/start",
        start,
        auth=Auth.BEARER,
        section="nodes",
        summary="Start a node's schedule: create its job, or make it active again.",
        description="The settings come from the node's `extra_config`; see nodes.md.",
        response=Node,
        refuses=(
            *_PLACE,
            _WRONG_TYPE,
            Refuses(409, LIMIT_REACHED, "the caller has 1000 active jobs"),
            Refuses(422, "", "a setting of the node is out of range or of the wrong type"),
        ),
        examples=(Example(path=f"{_PATH}start", response=TIMER),),
    ),
    Route(
        "POST",
        "/workflows/{slug}/nodes/{node_id}/schedule/pause",
        pause,
        auth=Auth.BEARER,
        section="nodes",
        summary="Pause a node's schedule.",
        response=Node,
        refuses=(
            *_PLACE,
            _NO_JOB,
            Refuses(400, cannot("pause", "<status>"), "the job is not active"),
        ),
        examples=(Example(path=f"{_PATH}pause", response=_PAUSED),),
    ),
    Route(
        "POST",
        "/workflows/{slug}/nodes/{node_id}/schedule/stop",
        stop,
        auth=Auth.BEARER,
        section="nodes",
        summary="Remove a node's schedule; a running execution continues.",
        response=Node,
        refuses=(*_PLACE, _WRONG_TYPE, _NO_JOB),
        examples=(Example(path=f"{_PATH}stop", response={**_PAUSED, "schedule_job": None}),),
    ),
)

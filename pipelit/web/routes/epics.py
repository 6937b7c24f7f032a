"""Epics over HTTP. Contract: epics.md.

Handlers only translate: the rules are `pipelit.services.epics`'s.
"""

from typing import Annotated

from pydantic import Field

from pipelit.actors.epic_changes import Epic, Task
from pipelit.engine.tasks import EpicStatus
from pipelit.services.epics import EpicsService
from pipelit.web.call import Call
from pipelit.web.models import (
    MAX_INT64,
    BatchKeys,
    Int64,
    Integer,
    ListQuery,
    LongText,
    Name,
    RequestModel,
    TagFilter,
    Tags,
    changes,
)
from pipelit.web.responses import Page
from pipelit.web.routes.tasks import SHOWN as TASK_SHOWN
from pipelit.web.routes.tasks import Priority
from pipelit.web.routing import Auth, Example, Refuses, Route

MAX_USD = 1_000_000_000_000
"""Beyond it micro-dollars would not fit a column of sums."""

Budget = Annotated[int, Integer(0, MAX_INT64)]
Usd = Annotated[float, Field(ge=0, le=MAX_USD, allow_inf_nan=False)]


class CreateEpic(RequestModel):
    """A new epic; its status is `planning`."""

    title: Name
    description: LongText = ""
    tags: Tags = Field(default_factory=list)
    workflow_id: Int64 | None = None
    priority: Priority = 2
    budget_tokens: Budget | None = None
    budget_usd: Usd | None = None


class ChangeEpic(RequestModel):
    """Fields of an epic to change. `cancelled` cancels its unfinished tasks too."""

    title: Name = ""
    description: LongText = ""
    tags: Tags = Field(default_factory=list)
    status: EpicStatus = "planning"
    priority: Priority = 2
    budget_tokens: Budget | None = None
    budget_usd: Usd | None = None
    result_summary: LongText | None = None


class EpicQuery(ListQuery):
    """Filters of the list."""

    status: EpicStatus | None = None
    tags: TagFilter | None = None


class DeleteEpics(RequestModel):
    """Ids to delete."""

    epic_ids: BatchKeys


async def browse(call: Call[None, EpicQuery]) -> Page[Epic]:
    """List epics."""
    query = call.query
    items, total = await call.service(EpicsService).browse(
        status=query.status, tags=query.tags or (), limit=query.limit, offset=query.offset
    )
    return Page(items=items, total=total)


async def create(call: Call[CreateEpic]) -> Epic:
    """Create an epic."""
    return await call.service(EpicsService).create(call.principal, changes(call.body))


async def get(call: Call) -> Epic:
    """Return one epic."""
    return await call.service(EpicsService).get(call.path.text("epic_id"))


async def change(call: Call[ChangeEpic]) -> Epic:
    """Change an epic."""
    fields = changes(call.body)
    return await call.service(EpicsService).change(
        call.principal, call.path.text("epic_id"), fields
    )


async def delete(call: Call) -> None:
    """Delete one epic."""
    await call.service(EpicsService).delete(call.path.text("epic_id"))


async def delete_many(call: Call[DeleteEpics]) -> None:
    """Delete those of the ids that exist."""
    await call.service(EpicsService).delete_many(call.body.epic_ids)


async def browse_tasks(call: Call[None, ListQuery]) -> Page[Task]:
    """List the tasks of an epic."""
    items, total = await call.service(EpicsService).browse_tasks(
        call.path.text("epic_id"), limit=call.query.limit, offset=call.query.offset
    )
    return Page(items=items, total=total)


_NOT_FOUND = Refuses(404, "Epic not found.", "no such epic")
_NO_WORKFLOW = Refuses(404, "Workflow not found.", "no such workflow, or not visible")

_SHOWN = {
    "id": "ep-3f9a1c0b77de",
    "title": "Migrate billing",
    "description": "",
    "tags": ["billing", "q1"],
    "created_by_node_id": None,
    "workflow_id": None,
    "user_profile_id": 3,
    "status": "planning",
    "priority": 1,
    "budget_tokens": None,
    "budget_usd": 12.5,
    "spent_tokens": 0,
    "spent_usd": 0.0,
    "agent_overhead_tokens": 0,
    "agent_overhead_usd": 0.0,
    "total_tasks": 0,
    "completed_tasks": 0,
    "failed_tasks": 0,
    "created_at": "2026-02-03T13:00:00",
    "updated_at": "2026-02-03T13:00:00",
    "completed_at": None,
    "result_summary": None,
}
_PATH = "/api/v1/epics/ep-3f9a1c0b77de/"

ROUTES = (
    Route(
        "GET",
        "/epics/",
        browse,
        auth=Auth.BEARER,
        section="epics",
        summary="List epics, newest first.",
        query=EpicQuery,
        response=Page[Epic],
        examples=(
            Example(
                path="/api/v1/epics/?tags=q1,q2&status=active", response={"items": [], "total": 0}
            ),
        ),
    ),
    Route(
        "POST",
        "/epics/",
        create,
        auth=Auth.BEARER,
        section="epics",
        summary="Create an epic.",
        description="Publishes `epic_created` on `epic:<id>`.",
        body=CreateEpic,
        status=201,
        response=Epic,
        refuses=(_NO_WORKFLOW,),
        examples=(
            Example(
                path="/api/v1/epics/",
                body={
                    "title": "Migrate billing",
                    "tags": ["billing", "q1"],
                    "priority": 1,
                    "budget_usd": 12.5,
                },
                status=201,
                response=_SHOWN,
            ),
        ),
    ),
    Route(
        "POST",
        "/epics/batch-delete/",
        delete_many,
        auth=Auth.BEARER,
        section="epics",
        summary="Delete several epics with their tasks.",
        description="Publishes `epic_deleted` for each.",
        body=DeleteEpics,
        status=204,
        examples=(
            Example(
                path="/api/v1/epics/batch-delete/",
                body={"epic_ids": ["ep-3f9a1c0b77de"]},
                status=204,
            ),
        ),
    ),
    Route(
        "GET",
        "/epics/{epic_id}/",
        get,
        auth=Auth.BEARER,
        section="epics",
        summary="Return one epic.",
        response=Epic,
        refuses=(_NOT_FOUND,),
        examples=(Example(path=_PATH, response=_SHOWN),),
    ),
    Route(
        "PATCH",
        "/epics/{epic_id}/",
        change,
        auth=Auth.BEARER,
        section="epics",
        summary="Change an epic.",
        description=(
            "The status `cancelled` also cancels its tasks that are pending, blocked or running, "
            "and the executions linked to the running ones: `task_updated` for each such task, "
            "then `epic_updated`."
        ),
        body=ChangeEpic,
        response=Epic,
        refuses=(_NOT_FOUND,),
        examples=(
            Example(
                path=_PATH,
                body={"status": "active"},
                response={**_SHOWN, "status": "active", "updated_at": "2026-02-03T13:02:00"},
            ),
        ),
    ),
    Route(
        "DELETE",
        "/epics/{epic_id}/",
        delete,
        auth=Auth.BEARER,
        section="epics",
        summary="Delete an epic with its tasks; linked executions go on.",
        description="Publishes `epic_deleted`.",
        status=204,
        refuses=(_NOT_FOUND,),
        examples=(Example(path=_PATH, status=204),),
    ),
    Route(
        "GET",
        "/epics/{epic_id}/tasks/",
        browse_tasks,
        auth=Auth.BEARER,
        section="epics",
        summary="List the tasks of an epic, newest first.",
        query=ListQuery,
        response=Page[Task],
        refuses=(_NOT_FOUND,),
        examples=(Example(path=f"{_PATH}tasks/", response={"items": [TASK_SHOWN], "total": 1}),),
    ),
)

"""Tasks over HTTP. Contract: tasks.md.

Handlers only translate: the rules are `pipelit.services.tasks`'s.
"""

from typing import Annotated, Any

from pydantic import Field

from pipelit.actors.epic_changes import Task
from pipelit.engine.tasks import TaskStatus
from pipelit.services.tasks import TasksService
from pipelit.web.call import Call
from pipelit.web.models import (
    MAX_INT64,
    BatchKeys,
    FreeObject,
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
from pipelit.web.routing import Auth, Example, Refuses, Route

DEFAULT_PRIORITY = 2

Priority = Annotated[int, Integer(1, 5)]
"""1 is the highest."""
Count = Annotated[int, Integer(0, MAX_INT64)]
WorkflowSlug = Annotated[str, Field(max_length=255)]
ExecutionId = Annotated[str, Field(max_length=36)]


class CreateTask(RequestModel):
    """A new task; it is blocked while one that it depends on is not completed."""

    epic_id: str
    title: Name
    description: LongText = ""
    tags: Tags = Field(default_factory=list)
    priority: Priority | None = DEFAULT_PRIORITY
    workflow_slug: WorkflowSlug | None = None
    depends_on: list[str] = Field(default_factory=list)
    requirements: FreeObject | None = None
    estimated_tokens: Count | None = None
    max_retries: Count = 2


class ChangeTask(RequestModel):
    """Fields of a task to change. `notes` is replaced whole."""

    title: Name = ""
    description: LongText = ""
    tags: Tags = Field(default_factory=list)
    status: TaskStatus = "pending"
    priority: Priority = DEFAULT_PRIORITY
    workflow_slug: WorkflowSlug | None = None
    execution_id: ExecutionId | None = None
    result_summary: LongText | None = None
    error_message: LongText | None = None
    notes: list[Any] = Field(default_factory=list)


class TaskQuery(ListQuery):
    """Filters of the list."""

    epic_id: str | None = None
    status: TaskStatus | None = None
    tags: TagFilter | None = None


class DeleteTasks(RequestModel):
    """Ids to delete."""

    task_ids: BatchKeys


async def browse(call: Call[None, TaskQuery]) -> Page[Task]:
    """List tasks."""
    query = call.query
    items, total = await call.service(TasksService).browse(
        epic_id=query.epic_id,
        status=query.status,
        tags=query.tags or (),
        limit=query.limit,
        offset=query.offset,
    )
    return Page(items=items, total=total)


async def create(call: Call[CreateTask]) -> Task:
    """Create a task."""
    fields = changes(call.body)
    if call.body.priority is None:
        fields["priority"] = DEFAULT_PRIORITY
    return await call.service(TasksService).create(fields.pop("epic_id"), fields)


async def get(call: Call) -> Task:
    """Return one task."""
    return await call.service(TasksService).get(call.path.text("task_id"))


async def change(call: Call[ChangeTask]) -> Task:
    """Change a task."""
    fields = changes(call.body)
    return await call.service(TasksService).change(
        call.principal, call.path.text("task_id"), fields
    )


async def delete(call: Call) -> None:
    """Delete one task."""
    await call.service(TasksService).delete(call.path.text("task_id"))


async def delete_many(call: Call[DeleteTasks]) -> None:
    """Delete those of the ids that exist."""
    await call.service(TasksService).delete_many(call.body.task_ids)


_NOT_FOUND = Refuses(404, "Task not found.", "no such task")
_NO_EXECUTION = Refuses(404, "Execution not found.", "an execution of others is to be linked")
_NO_EPIC = Refuses(404, "Epic not found.", "no such epic")

SHOWN = {
    "id": "tk-9d8c7b6a5f4e",
    "epic_id": "ep-3f9a1c0b77de",
    "title": "Export ledger",
    "description": "",
    "tags": [],
    "created_by_node_id": None,
    "status": "blocked",
    "priority": 2,
    "workflow_id": None,
    "workflow_slug": None,
    "execution_id": None,
    "workflow_source": "inline",
    "depends_on": ["tk-10aa22bb33cc"],
    "requirements": None,
    "estimated_tokens": None,
    "actual_tokens": 0,
    "actual_usd": 0.0,
    "llm_calls": 0,
    "tool_invocations": 0,
    "duration_ms": 0,
    "created_at": "2026-02-03T13:05:00",
    "updated_at": "2026-02-03T13:05:00",
    "started_at": None,
    "completed_at": None,
    "result_summary": None,
    "error_message": None,
    "retry_count": 0,
    "max_retries": 2,
    "notes": [],
}
"""A task as the documentation shows it."""

_PATH = "/api/v1/tasks/tk-9d8c7b6a5f4e/"

ROUTES = (
    Route(
        "GET",
        "/tasks/",
        browse,
        auth=Auth.BEARER,
        section="tasks",
        summary="List tasks, newest first.",
        query=TaskQuery,
        response=Page[Task],
        examples=(
            Example(
                path="/api/v1/tasks/?epic_id=ep-3f9a1c0b77de&status=blocked",
                response={"items": [SHOWN], "total": 1},
            ),
        ),
    ),
    Route(
        "POST",
        "/tasks/",
        create,
        auth=Auth.BEARER,
        section="tasks",
        summary="Create a task of an epic; it starts nothing.",
        description="Publishes `task_created` on `epic:<epic_id>`.",
        body=CreateTask,
        status=201,
        response=Task,
        refuses=(_NO_EPIC,),
        examples=(
            Example(
                path="/api/v1/tasks/",
                body={
                    "epic_id": "ep-3f9a1c0b77de",
                    "title": "Export ledger",
                    "depends_on": ["tk-10aa22bb33cc"],
                    "priority": None,
                },
                status=201,
                response=SHOWN,
            ),
        ),
    ),
    Route(
        "POST",
        "/tasks/batch-delete/",
        delete_many,
        auth=Auth.BEARER,
        section="tasks",
        summary="Delete several tasks.",
        description="Publishes `tasks_deleted` once per affected epic.",
        body=DeleteTasks,
        status=204,
        examples=(
            Example(
                path="/api/v1/tasks/batch-delete/",
                body={"task_ids": ["tk-9d8c7b6a5f4e"]},
                status=204,
            ),
        ),
    ),
    Route(
        "GET",
        "/tasks/{task_id}/",
        get,
        auth=Auth.BEARER,
        section="tasks",
        summary="Return one task.",
        response=Task,
        refuses=(_NOT_FOUND,),
        examples=(Example(path=_PATH, response=SHOWN),),
    ),
    Route(
        "PATCH",
        "/tasks/{task_id}/",
        change,
        auth=Auth.BEARER,
        section="tasks",
        summary="Change a task.",
        description=(
            "When it becomes completed, blocked tasks whose dependencies are all completed become "
            "pending: `task_updated` for each of them, then for the task itself."
        ),
        body=ChangeTask,
        response=Task,
        refuses=(_NOT_FOUND, _NO_EXECUTION),
        examples=(
            Example(
                path=_PATH,
                body={"status": "completed"},
                response={
                    **SHOWN,
                    "status": "completed",
                    "updated_at": "2026-02-03T13:09:00",
                    "completed_at": "2026-02-03T13:09:00",
                },
            ),
        ),
    ),
    Route(
        "DELETE",
        "/tasks/{task_id}/",
        delete,
        auth=Auth.BEARER,
        section="tasks",
        summary="Delete a task; it leaves every `depends_on`.",
        description="Publishes `task_updated` for tasks that it unblocks, then `task_deleted`.",
        status=204,
        refuses=(_NOT_FOUND,),
        examples=(Example(path=_PATH, status=204),),
    ),
)

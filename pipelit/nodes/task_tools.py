"""`task_tools`: the tasks of an agent's epics. Contract: node-types.md §8.6."""

from collections.abc import Mapping
from typing import Any, Protocol

from pipelit.engine.definition import NodeDef
from pipelit.nodes.base import NodeServices, Tool
from pipelit.nodes.json_tools import Acting, json_tool
from pipelit.nodes.tool_limits import (
    check_priority,
    check_range,
    check_status,
    check_texts,
    clamp,
    given,
    integer,
    maybe,
    read_tags,
    split,
    text,
)
from pipelit.nodes.tool_schema import tool_spec

STATUSES = frozenset({"pending", "blocked", "running", "completed", "failed", "cancelled"})

_EPIC_ID, _TASK_ID = text("Id of the epic"), text("Id of the task")
_CREATE = tool_spec(
    "create_task",
    "Create a task in an epic.",
    {
        "epic_id": _EPIC_ID,
        "title": text("Short name"),
        "description": text("What is to be done", ""),
        "tags": text("Tags, separated by commas", ""),
        "depends_on": text("Ids of tasks of the same epic, separated by commas", ""),
        "priority": integer("1 (highest) to 5", 2),
        "estimated_tokens": maybe("integer", "Tokens it will probably use"),
        "max_retries": integer("How often it may be tried again", 2),
    },
    required=("epic_id", "title"),
)
_LIST = tool_spec(
    "list_tasks",
    "List tasks of an epic.",
    {
        "epic_id": _EPIC_ID,
        "status": maybe("string", "Only tasks with this status"),
        "tags": maybe("string", "Tags, separated by commas; one is enough"),
        "limit": integer("Most results, 1 to 100", 20),
    },
    required=("epic_id",),
)
_UPDATE = tool_spec(
    "update_task",
    "Change fields of a task.",
    {
        "task_id": _TASK_ID,
        "status": maybe("string", "pending, blocked, running, completed, failed or cancelled"),
        "title": maybe("string", "New title"),
        "description": maybe("string", "New description"),
        "priority": maybe("integer", "1 (highest) to 5"),
        "result_summary": maybe("string", "What came of it"),
        "error_message": maybe("string", "Why it failed"),
        "notes": maybe("string", "A note to add"),
    },
    required=("task_id",),
)
_CANCEL = tool_spec(
    "cancel_task",
    "Cancel a task and its execution.",
    {"task_id": _TASK_ID, "reason": text("Why", "")},
    required=("task_id",),
)


class Tasks(Protocol):
    """Tasks of epics of a workflow's owner. Every method raises `Refusal`: there is no such."""

    async def create(
        self, acting: Acting, epic_id: str, fields: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Store a task; the same call again returns the first one."""

    async def browse(
        self, acting: Acting, epic_id: str, *, status: str | None, tags: list[str], limit: int
    ) -> Mapping[str, Any]:
        """Return the tasks of an epic that match, newest first."""

    async def update(
        self, acting: Acting, task_id: str, fields: Mapping[str, Any], *, note: str | None
    ) -> Mapping[str, Any]:
        """Change the given fields of a task, and add a note."""

    async def cancel(self, acting: Acting, task_id: str, *, note: str) -> Mapping[str, Any]:
        """Cancel a task and the execution linked to it."""


def task_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, tasks: Tasks
) -> tuple[Tool, ...]:
    """Offer the four functions."""

    async def create(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        names = ("title", "description", "priority", "estimated_tokens", "max_retries")
        fields = given(arguments, names)
        _check(fields)
        lists = {
            "tags": read_tags(arguments["tags"]),
            "depends_on": split(arguments["depends_on"]),
        }
        return await tasks.create(acting, arguments["epic_id"], {**fields, **lists})

    async def browse(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        check_status(arguments["status"], STATUSES)
        return await tasks.browse(
            acting,
            arguments["epic_id"],
            status=arguments["status"],
            tags=read_tags(arguments["tags"] or ""),
            limit=clamp(arguments["limit"]),
        )

    async def update(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        fields = given(arguments, arguments.keys() - {"task_id"})
        _check(fields)
        note = fields.pop("notes", None)
        return await tasks.update(acting, arguments["task_id"], fields, note=note)

    async def cancel(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        check_texts(arguments)
        note = f"Cancelled: {arguments['reason']}"
        return await tasks.cancel(acting, arguments["task_id"], note=note)

    return (
        json_tool(_CREATE, node, create),
        json_tool(_LIST, node, browse),
        json_tool(_UPDATE, node, update),
        json_tool(_CANCEL, node, cancel),
    )


def _check(fields: Mapping[str, Any]) -> None:
    check_priority(fields)
    check_status(fields.get("status"), STATUSES)
    check_texts(fields)
    check_range(fields, "estimated_tokens", 0)
    check_range(fields, "max_retries", 0)

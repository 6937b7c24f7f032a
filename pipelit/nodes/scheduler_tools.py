"""`scheduler_tools`: recurring jobs of an agent's owner. Contract: node-types.md §8.10."""

from collections.abc import Mapping
from typing import Any, Protocol

from pipelit.engine.definition import NodeDef
from pipelit.nodes.base import NodeServices, Tool
from pipelit.nodes.json_tools import Acting, json_tool, refused
from pipelit.nodes.tool_limits import (
    check_range,
    check_status,
    check_texts,
    clamp,
    given,
    integer,
    maybe,
    text,
)
from pipelit.nodes.tool_schema import tool_spec

STATUSES = frozenset({"active", "paused", "done", "dead"})
MAX_INTERVAL, MAX_TIMEOUT = 31_536_000, 86_400
MAX_TRIGGER_ID = 255

_SCHEDULE_ID = {"schedule_id": text("Id of the job")}
_CREATE = tool_spec(
    "create_schedule",
    "Create a recurring job.",
    {
        "name": text("Short name"),
        "workflow_id": integer("Workflow to run"),
        "interval_seconds": maybe("integer", "Seconds between runs; leave out with cron"),
        "description": text("What it is for", ""),
        "trigger_node_id": maybe("string", "Trigger node to fire"),
        "total_repeats": integer("Runs until it is done; 0 = no end", 0),
        "max_retries": integer("Failed runs in a row until it is given up", 3),
        "timeout_seconds": integer("Time limit of a run", 600),
        "cron": maybe("string", "Cron expression with 5 fields, instead of an interval"),
        "timezone": maybe("string", "IANA time zone of the cron expression"),
        "catch_up": text("What happens to missed times: one, skip or all", "one"),
    },
    required=("name", "workflow_id"),
)
_LIST = tool_spec(
    "list_schedules",
    "List jobs.",
    {
        "status": maybe("string", "active, paused, done or dead"),
        "workflow_id": maybe("integer", "Only jobs of this workflow"),
        "limit": integer("Most results, 1 to 100", 10),
    },
)
_PAUSE, _RESUME, _STOP = (
    tool_spec(name, description, _SCHEDULE_ID, required=("schedule_id",))
    for name, description in (
        ("pause_schedule", "Pause a job."),
        ("resume_schedule", "Resume a job."),
        ("stop_schedule", "Delete a job for good."),
    )
)


class Schedules(Protocol):
    """Jobs of workflows of a workflow's owner. Every method raises `Refusal`."""

    async def create(self, acting: Acting, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store an active job; the same call again returns the first one."""

    async def pause(self, acting: Acting, schedule_id: str) -> Mapping[str, Any]:
        """Pause an active job."""

    async def resume(self, acting: Acting, schedule_id: str) -> Mapping[str, Any]:
        """Make a paused job active again."""

    async def stop(self, acting: Acting, schedule_id: str) -> Mapping[str, Any]:
        """Delete a job."""

    async def browse(
        self, acting: Acting, *, status: str | None, workflow_id: int | None, limit: int
    ) -> Mapping[str, Any]:
        """Return the jobs that match, newest first."""


def scheduler_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, schedules: Schedules
) -> tuple[Tool, ...]:
    """Offer the five functions."""

    async def create(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        fields = given(arguments, arguments.keys())
        _check(fields)
        return await schedules.create(acting, fields)

    async def pause(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        return await schedules.pause(acting, arguments["schedule_id"])

    async def resume(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        return await schedules.resume(acting, arguments["schedule_id"])

    async def stop(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        return await schedules.stop(acting, arguments["schedule_id"])

    async def browse(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        check_status(arguments["status"], STATUSES)
        return await schedules.browse(
            acting,
            status=arguments["status"],
            workflow_id=arguments["workflow_id"],
            limit=clamp(arguments["limit"]),
        )

    return (
        json_tool(_CREATE, node, create),
        json_tool(_PAUSE, node, pause),
        json_tool(_RESUME, node, resume),
        json_tool(_STOP, node, stop),
        json_tool(_LIST, node, browse),
    )


def _check(fields: Mapping[str, Any]) -> None:
    if ("interval_seconds" in fields) == ("cron" in fields):
        raise refused("exactly one of interval_seconds, cron is required")
    check_texts(fields, name="name")
    if len(fields.get("trigger_node_id", "")) > MAX_TRIGGER_ID:
        raise refused(f"trigger_node_id must be at most {MAX_TRIGGER_ID} characters")
    check_range(fields, "interval_seconds", 1, MAX_INTERVAL)
    check_range(fields, "total_repeats", 0)
    check_range(fields, "max_retries", 0)
    check_range(fields, "timeout_seconds", 1, MAX_TIMEOUT)
    if fields["catch_up"] not in ("one", "skip", "all"):
        raise refused("catch_up must be one of: one, skip, all")

"""`epic_tools`: an agent's epics. Contract: node-types.md §8.5."""

from collections.abc import Mapping
from typing import Any, Protocol

from pipelit.engine.definition import NodeDef
from pipelit.nodes.base import NodeServices, Tool
from pipelit.nodes.json_tools import Acting, json_tool
from pipelit.nodes.tool_limits import (
    MAX_USD,
    check_priority,
    check_range,
    check_status,
    check_texts,
    clamp,
    given,
    integer,
    maybe,
    read_tags,
    text,
)
from pipelit.nodes.tool_schema import tool_spec

STATUSES = frozenset({"planning", "active", "paused", "completed", "failed", "cancelled"})

_EPIC_ID = text("Id of the epic")
_BUDGETS = {
    "budget_tokens": maybe("integer", "Most tokens its tasks may use"),
    "budget_usd": maybe("number", "Most US dollars its tasks may cost"),
}
_CREATE = tool_spec(
    "create_epic",
    "Create an epic.",
    {
        "title": text("Short name"),
        "description": text("What it is about", ""),
        "tags": text("Tags, separated by commas", ""),
        "priority": integer("1 (highest) to 5", 2),
        **_BUDGETS,
    },
    required=("title",),
)
_STATUS = tool_spec(
    "epic_status", "Show an epic and its tasks.", {"epic_id": _EPIC_ID}, required=("epic_id",)
)
_UPDATE = tool_spec(
    "update_epic",
    "Change fields of an epic.",
    {
        "epic_id": _EPIC_ID,
        "status": maybe("string", "planning, active, paused, completed, failed or cancelled"),
        "title": maybe("string", "New title"),
        "description": maybe("string", "New description"),
        "priority": maybe("integer", "1 (highest) to 5"),
        **_BUDGETS,
        "result_summary": maybe("string", "What came of it"),
    },
    required=("epic_id",),
)
_SEARCH = tool_spec(
    "search_epics",
    "Find epics by text, tags or status.",
    {
        "query": text("Text in title or description", ""),
        "tags": text("Tags, separated by commas; one is enough", ""),
        "status": maybe("string", "Only epics with this status"),
        "limit": integer("Most results, 1 to 100", 10),
    },
)


class Epics(Protocol):
    """The epics of a workflow's owner. Every method raises `Refusal`: there is no such epic."""

    async def create(self, acting: Acting, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store an epic; the same call again returns the first one."""

    async def status(self, acting: Acting, epic_id: str) -> Mapping[str, Any]:
        """Describe an epic and its tasks."""

    async def update(
        self, acting: Acting, epic_id: str, fields: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Change the given fields of an epic."""

    async def search(
        self, acting: Acting, *, query: str, tags: list[str], status: str | None, limit: int
    ) -> Mapping[str, Any]:
        """Return the epics that match, newest first."""


def epic_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, epics: Epics
) -> tuple[Tool, ...]:
    """Offer the four functions."""

    async def create(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        names = ("title", "description", "priority", "budget_tokens", "budget_usd")
        fields = given(arguments, names)
        _check(fields)
        return await epics.create(acting, {**fields, "tags": read_tags(arguments["tags"])})

    async def status(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        return await epics.status(acting, arguments["epic_id"])

    async def update(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        fields = given(arguments, arguments.keys() - {"epic_id"})
        _check(fields)
        return await epics.update(acting, arguments["epic_id"], fields)

    async def search(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        check_status(arguments["status"], STATUSES)
        return await epics.search(
            acting,
            query=arguments["query"].strip(),
            tags=read_tags(arguments["tags"]),
            status=arguments["status"],
            limit=clamp(arguments["limit"]),
        )

    return (
        json_tool(_CREATE, node, create),
        json_tool(_STATUS, node, status),
        json_tool(_UPDATE, node, update),
        json_tool(_SEARCH, node, search),
    )


def _check(fields: Mapping[str, Any]) -> None:
    check_priority(fields)
    check_status(fields.get("status"), STATUSES)
    check_texts(fields)
    check_range(fields, "budget_tokens", 0)
    check_range(fields, "budget_usd", 0, MAX_USD)

"""Agent users over HTTP. Contract: users.md.

Handlers only translate: the rules are `pipelit.services.agents`'s.
"""

from pipelit.services.agents import NOT_FOUND, NOT_YOURS, AgentsService, AgentUser
from pipelit.web.call import Call
from pipelit.web.models import BatchIds, ListQuery, RequestModel
from pipelit.web.responses import Page
from pipelit.web.routing import Auth, Example, Refuses, Route


class DeleteAgents(RequestModel):
    """Ids to delete."""

    ids: BatchIds


async def browse(call: Call[None, ListQuery]) -> Page[AgentUser]:
    """List all agent users."""
    items, total = await call.service(AgentsService).browse(
        limit=call.query.limit, offset=call.query.offset
    )
    return Page(items=items, total=total)


async def delete(call: Call) -> None:
    """Delete one agent user."""
    await call.service(AgentsService).delete(call.principal, call.path.number("user_id"))


async def delete_many(call: Call[DeleteAgents]) -> None:
    """Delete those of the ids that the caller may delete."""
    await call.service(AgentsService).delete_many(call.principal, call.body.ids)


_SHOWN = {
    "id": 14,
    "username": "agent_invoice-triage_agent_1",
    "purpose": "Adjust own prompt",
    "api_key_preview": "...q7Zk2VwA",
    "created_at": "2026-02-03T14:00:00",
    "created_by": "maria",
}

ROUTES = (
    Route(
        "GET",
        "/users/agents/",
        browse,
        auth=Auth.BEARER,
        section="users",
        summary="List all agent users, newest first.",
        query=ListQuery,
        response=Page[AgentUser],
        examples=(Example(path="/api/v1/users/agents/", response={"items": [_SHOWN], "total": 1}),),
    ),
    Route(
        "DELETE",
        "/users/agents/{user_id:int}/",
        delete,
        auth=Auth.BEARER,
        section="users",
        act="agent_delete",
        summary="Delete an agent user and its keys; what it owned passes to its creator.",
        status=204,
        refuses=(
            Refuses(404, NOT_FOUND, "no agent user has this id; humans' ids count as unknown"),
            Refuses(403, NOT_YOURS, "somebody else's workflow made it and the caller is no admin"),
        ),
        examples=(
            Example(path="/api/v1/users/agents/14/", status=204),
            Example(path="/api/v1/users/agents/3/", status=404, response={"detail": NOT_FOUND}),
        ),
    ),
    Route(
        "POST",
        "/users/agents/batch-delete/",
        delete_many,
        auth=Auth.BEARER,
        section="users",
        act="agent_delete",
        summary="Delete several agent users; ids that the caller may not delete are skipped.",
        body=DeleteAgents,
        status=204,
        examples=(
            Example(path="/api/v1/users/agents/batch-delete/", body={"ids": [14, 15]}, status=204),
        ),
    ),
)

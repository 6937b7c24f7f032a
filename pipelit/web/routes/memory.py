"""Memory over HTTP. Contract: memory.md.

Handlers only translate: the rules are `pipelit.services.memory`'s.
"""

from typing import Self

from pydantic import ConfigDict, model_validator

from pipelit.services.memory import (
    Checkpoint,
    Episode,
    Fact,
    MemoryService,
    MemoryUser,
    Procedure,
)
from pipelit.web.call import Call
from pipelit.web.models import BatchKeys, ListQuery, RequestModel, given, problem
from pipelit.web.responses import Page
from pipelit.web.routing import Auth, Example, Handler, Route


class FactQuery(ListQuery):
    """Exact filters of the list."""

    scope: str | None = None
    fact_type: str | None = None


class AgentQuery(ListQuery):
    """An exact filter of the list."""

    agent_id: str | None = None


class CheckpointQuery(ListQuery):
    """An exact filter of the list."""

    thread_id: str | None = None


class DeleteMemories(RequestModel):
    """Ids to delete."""

    ids: BatchKeys


class DeleteCheckpoints(RequestModel):
    """Threads and versions to delete; at least one of the lists is given."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [given(n, "array") for n in ("thread_ids", "checkpoint_ids")]}
    )

    thread_ids: BatchKeys | None = None
    checkpoint_ids: BatchKeys | None = None

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        if self.thread_ids is None and self.checkpoint_ids is None:
            raise problem("at least one of thread_ids, checkpoint_ids is required")
        return self


async def browse_facts(call: Call[None, FactQuery]) -> Page[Fact]:
    """List facts."""
    query = call.query
    items, total = await call.service(MemoryService).browse_facts(
        scope=query.scope, fact_type=query.fact_type, limit=query.limit, offset=query.offset
    )
    return Page(items=items, total=total)


async def delete_facts(call: Call[DeleteMemories]) -> None:
    """Delete facts."""
    await call.service(MemoryService).delete_facts(call.body.ids)


async def browse_episodes(call: Call[None, AgentQuery]) -> Page[Episode]:
    """List episodes."""
    query = call.query
    items, total = await call.service(MemoryService).browse_episodes(
        agent_id=query.agent_id, limit=query.limit, offset=query.offset
    )
    return Page(items=items, total=total)


async def delete_episodes(call: Call[DeleteMemories]) -> None:
    """Delete episodes."""
    await call.service(MemoryService).delete_episodes(call.body.ids)


async def browse_procedures(call: Call[None, AgentQuery]) -> Page[Procedure]:
    """List procedures."""
    query = call.query
    items, total = await call.service(MemoryService).browse_procedures(
        agent_id=query.agent_id, limit=query.limit, offset=query.offset
    )
    return Page(items=items, total=total)


async def delete_procedures(call: Call[DeleteMemories]) -> None:
    """Delete procedures."""
    await call.service(MemoryService).delete_procedures(call.body.ids)


async def browse_users(call: Call[None, ListQuery]) -> Page[MemoryUser]:
    """List memory users."""
    items, total = await call.service(MemoryService).browse_users(
        limit=call.query.limit, offset=call.query.offset
    )
    return Page(items=items, total=total)


async def delete_users(call: Call[DeleteMemories]) -> None:
    """Delete memory users."""
    await call.service(MemoryService).delete_users(call.body.ids)


async def browse_checkpoints(call: Call[None, CheckpointQuery]) -> Page[Checkpoint]:
    """List checkpoints."""
    query = call.query
    items, total = await call.service(MemoryService).browse_checkpoints(
        thread_id=query.thread_id, limit=query.limit, offset=query.offset
    )
    return Page(items=items, total=total)


async def delete_checkpoints(call: Call[DeleteCheckpoints]) -> None:
    """Delete versions of threads."""
    await call.service(MemoryService).delete_checkpoints(
        thread_ids=call.body.thread_ids or (), checkpoint_ids=call.body.checkpoint_ids or ()
    )


_FACT = {
    "id": "7a5e8f3c-1f0b-4b8e-9a52-2a1f0b5b8f11",
    "scope": "user",
    "agent_id": None,
    "user_id": "gw:88120",
    "key": "invoice_language",
    "value": {"code": "de"},
    "fact_type": "user_preference",
    "confidence": 1.0,
    "times_confirmed": 2,
    "access_count": 5,
    "created_at": "2026-01-20T07:00:00",
    "updated_at": "2026-02-01T07:30:00",
}
_EPISODE = {
    "id": "5d0c9a5e-41a7-4f0e-8f6c-8b1f1f6a2c10",
    "agent_id": "workflow:12",
    "user_id": None,
    "trigger_type": "chat",
    "success": True,
    "error_code": None,
    "summary": None,
    "started_at": "2026-02-01T07:29:58",
    "ended_at": "2026-02-01T07:30:00",
    "duration_ms": 2000,
    "created_at": "2026-02-01T07:29:58",
}
_PROCEDURE = {
    "id": "c1a0f6d2-6f0d-4a8b-9a6e-0d6a52d1b001",
    "agent_id": "workflow:12",
    "name": "triage invoice",
    "description": "",
    "procedure_type": "tool_sequence",
    "times_used": 3,
    "times_succeeded": 2,
    "times_failed": 1,
    "success_rate": 0.667,
    "is_active": True,
    "created_at": "2026-02-01T07:30:00",
}
_USER = {
    "id": "0b9f3f7c-6ad3-4be4-9d41-3a2c1f8e7d20",
    "canonical_id": "gw:88120",
    "display_name": "Mara",
    "telegram_id": None,
    "email": None,
    "total_conversations": 4,
    "last_seen_at": "2026-02-01T07:30:00",
    "created_at": "2026-01-20T07:00:00",
}
_CHECKPOINT = {
    "thread_id": "3:12",
    "checkpoint_ns": "",
    "checkpoint_id": "019c17f3-2b80-7c31-9f2e-5a6b7c8d9e0f",
    "parent_checkpoint_id": None,
    "step": -1,
    "source": "input",
    "blob_size": 118,
}


def _deletion(kind: str, handler: Handler, ids: list[str]) -> Route:
    return Route(
        "POST",
        f"/memories/{kind}/batch-delete/",
        handler,
        auth=Auth.BEARER,
        section="memory",
        summary=f"Delete several {kind}, for ever.",
        body=DeleteMemories,
        status=204,
        examples=(
            Example(path=f"/api/v1/memories/{kind}/batch-delete/", body={"ids": ids}, status=204),
        ),
    )


ROUTES = (
    Route(
        "GET",
        "/memories/facts/",
        browse_facts,
        auth=Auth.BEARER,
        section="memory",
        summary="List facts, last changed first.",
        query=FactQuery,
        response=Page[Fact],
        examples=(
            Example(
                path="/api/v1/memories/facts/?scope=user&limit=1",
                response={"items": [_FACT], "total": 9},
            ),
        ),
    ),
    _deletion("facts", delete_facts, ["7a5e8f3c-1f0b-4b8e-9a52-2a1f0b5b8f11"]),
    Route(
        "GET",
        "/memories/episodes/",
        browse_episodes,
        auth=Auth.BEARER,
        section="memory",
        summary="List episodes, last started first.",
        query=AgentQuery,
        response=Page[Episode],
        examples=(
            Example(
                path="/api/v1/memories/episodes/?agent_id=workflow:12",
                response={"items": [_EPISODE], "total": 1},
            ),
        ),
    ),
    _deletion("episodes", delete_episodes, ["5d0c9a5e-41a7-4f0e-8f6c-8b1f1f6a2c10"]),
    Route(
        "GET",
        "/memories/procedures/",
        browse_procedures,
        auth=Auth.BEARER,
        section="memory",
        summary="List procedures, newest first.",
        query=AgentQuery,
        response=Page[Procedure],
        examples=(
            Example(
                path="/api/v1/memories/procedures/", response={"items": [_PROCEDURE], "total": 1}
            ),
        ),
    ),
    _deletion("procedures", delete_procedures, ["c1a0f6d2-6f0d-4a8b-9a6e-0d6a52d1b001"]),
    Route(
        "GET",
        "/memories/users/",
        browse_users,
        auth=Auth.BEARER,
        section="memory",
        summary="List the people whom agents met, last seen first.",
        query=ListQuery,
        response=Page[MemoryUser],
        examples=(
            Example(path="/api/v1/memories/users/", response={"items": [_USER], "total": 1}),
        ),
    ),
    _deletion("users", delete_users, ["0b9f3f7c-6ad3-4be4-9d41-3a2c1f8e7d20"]),
    Route(
        "GET",
        "/memories/checkpoints/",
        browse_checkpoints,
        auth=Auth.BEARER,
        section="memory",
        summary="List the stored versions of conversation threads, newest first.",
        query=CheckpointQuery,
        response=Page[Checkpoint],
        examples=(
            Example(
                path="/api/v1/memories/checkpoints/?thread_id=3:12",
                response={"items": [_CHECKPOINT], "total": 1},
            ),
        ),
    ),
    Route(
        "POST",
        "/memories/checkpoints/batch-delete/",
        delete_checkpoints,
        auth=Auth.BEARER,
        section="memory",
        summary="Delete versions and whole threads.",
        description=(
            "A conversation falls back to its newest version that is left; without any it is "
            "forgotten."
        ),
        body=DeleteCheckpoints,
        status=204,
        examples=(
            Example(
                path="/api/v1/memories/checkpoints/batch-delete/",
                body={"thread_ids": ["3:12"]},
                status=204,
            ),
        ),
    ),
)

"""Chat with a workflow, and the caller's transcript. Contract: chat.md."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from pydantic import Field

from pipelit.errors import BadRequest
from pipelit.services.chats import ChatsService, History
from pipelit.web.call import Call
from pipelit.web.models import (
    MAX_LONG_TEXT,
    MAX_PAGE,
    IdempotencyHeaders,
    IntegerText,
    NotBlank,
    QueryModel,
    RequestModel,
)
from pipelit.web.responses import Response
from pipelit.web.routes.repeat import REPLAYED, answer, repeatable
from pipelit.web.routing import Auth, Example, Refuses, Route

BAD_BEFORE = "Invalid 'before' datetime format. Use ISO 8601 (e.g. 2026-01-01T00:00:00Z)."
NO_WORKFLOW = Refuses(404, "Workflow not found.", "no such workflow, or not visible")


class ChatMessageIn(RequestModel):
    """A user's message. `trigger_node_id`: a `trigger_chat` node of the workflow."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_LONG_TEXT), NotBlank()]
    trigger_node_id: str | None = None


class ChatMessageOut(msgspec.Struct, frozen=True):
    """The execution the message started; the reply comes by event."""

    execution_id: str
    status: str
    response: str


class HistoryQuery(QueryModel):
    """`before`: only messages strictly older than this instant."""

    limit: Annotated[int, IntegerText(0, MAX_PAGE)] = 10
    before: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None


async def post_message(call: Call[ChatMessageIn, None, IdempotencyHeaders]) -> Response:
    """Store a message and start its execution."""
    slug = call.path.text("slug")
    started = await call.service(ChatsService).post(
        call.principal,
        slug,
        text=call.body.text,
        trigger_node_id=call.body.trigger_node_id,
        request=repeatable(call, "chat"),
    )
    return answer(started)


async def get_history(call: Call[None, HistoryQuery]) -> History:
    """Return the newest messages of the caller's thread, oldest first."""
    return await call.service(ChatsService).history(
        call.principal,
        call.path.text("slug"),
        limit=call.query.limit,
        before=_parse_before(call.query.before),
    )


async def delete_history(call: Call) -> None:
    """Forget the caller's thread; agents forget it too."""
    await call.service(ChatsService).forget(call.principal, call.path.text("slug"))


def _parse_before(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # overflow: UTC is in no year of the calendar
        raise BadRequest(BAD_BEFORE) from error


_POSTED = {
    "execution_id": "0f9d3f0a-3a3e-4a51-bb17-6f6f3d9be5c2",
    "status": "pending",
    "response": "",
}

ROUTES = (
    Route(
        "POST",
        "/workflows/{slug}/chat/",
        post_message,
        auth=Auth.BEARER,
        section="chat",
        summary="Send a chat message: starts an execution.",
        description="One run of a session at a time, in arrival order. " + REPLAYED,
        body=ChatMessageIn,
        headers=IdempotencyHeaders,
        response=ChatMessageOut,
        refuses=(
            NO_WORKFLOW,
            Refuses(404, "No chat trigger found.", "none is active, or the named one is not one"),
            Refuses(400, "Workflow is inactive.", "`is_active` is false"),
            Refuses(
                409,
                "Idempotency-Key was already used with a different request.",
                "another body or endpoint was sent with this key",
            ),
            Refuses(
                503,
                "Failed to enqueue workflow execution.",
                "50 messages of the session wait already, or the engine takes no work",
            ),
        ),
        examples=(
            Example(
                path="/api/v1/workflows/support-bot/chat/",
                body={"text": "Where is parcel 4471?"},
                response=_POSTED,
            ),
        ),
    ),
    Route(
        "GET",
        "/workflows/{slug}/chat/history",
        get_history,
        auth=Auth.BEARER,
        section="chat",
        summary="Return the caller's transcript with the workflow.",
        query=HistoryQuery,
        response=History,
        refuses=(NO_WORKFLOW, Refuses(400, BAD_BEFORE, "`before` is no ISO 8601 instant")),
        examples=(
            Example(
                path="/api/v1/workflows/support-bot/chat/history?limit=1",
                response={
                    "messages": [
                        {
                            "role": "user",
                            "text": "Where is parcel 4471?",
                            "timestamp": "2026-02-03T10:00:00.015200",
                        }
                    ],
                    "thread_id": "3:12",
                    "has_more": False,
                },
            ),
        ),
    ),
    Route(
        "DELETE",
        "/workflows/{slug}/chat/history",
        delete_history,
        auth=Auth.BEARER,
        section="chat",
        summary="Forget the caller's conversation with the workflow.",
        status=204,
        refuses=(NO_WORKFLOW,),
    ),
)

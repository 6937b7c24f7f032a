"""Messages from the message gateway. Contract: beyond.md §4."""

from typing import Annotated, Any

import msgspec
from pydantic import Field

from pipelit.errors import Invalid
from pipelit.services.inbound import Attachment, InboundMessage, InboundService, Sender
from pipelit.web.call import Call
from pipelit.web.models import FreeObject, IdempotencyHeaders, Int64, LongText, RequestModel
from pipelit.web.responses import Response
from pipelit.web.routes.repeat import REPLAYED, answer, repeatable
from pipelit.web.routing import CustomAuth, Example, Knock, Refuses, Route

INCOMPLETE = "route must contain workflow_slug and trigger_node_id"

ExternalId = Annotated[str, Field(max_length=255)]


Place = Annotated[
    FreeObject,
    Field(
        json_schema_extra={
            "required": ["workflow_slug", "trigger_node_id"],
            "properties": {
                "workflow_slug": {"type": "string", "minLength": 1},
                "trigger_node_id": {"type": "string", "minLength": 1},
            },
        }
    ),
]
"""Which trigger of which workflow; what is wrong with it has an answer of its own."""


class FromIn(RequestModel):
    """Who wrote."""

    id: ExternalId
    username: str | None = None
    display_name: str | None = None


class SourceIn(RequestModel):
    """Where the message was written."""

    protocol: str
    chat_id: Annotated[str, Field(max_length=200)]
    message_id: str = ""
    reply_to_message_id: str | None = None
    sender: FromIn | None = Field(default=None, alias="from")


class AttachmentIn(RequestModel):
    """A file that came with the message."""

    filename: str
    mime_type: str
    size_bytes: Int64 = 0
    download_url: str = ""


class InboundIn(RequestModel):
    """A message. `route`: `workflow_slug` and `trigger_node_id`."""

    route: Place
    credential_id: ExternalId
    source: SourceIn
    text: LongText
    attachments: list[AttachmentIn] = Field(default_factory=list)
    timestamp: str
    extra_data: FreeObject | None = None


class InboundOut(msgspec.Struct, frozen=True):
    """The execution that was started."""

    execution_id: str
    status: str


class AnsweredOut(msgspec.Struct, frozen=True):
    """What became of an answer to a question."""

    status: str
    task_id: str


async def _check_token(knock: Knock) -> None:
    knock.services.get(InboundService).check_token(knock.bearer)


GATEWAY_TOKEN = CustomAuth(
    name="gateway", description="The gateway's inbound token.", check=_check_token
)


async def receive(call: Call[InboundIn, None, IdempotencyHeaders]) -> Response:
    """Start an execution, or answer a question."""
    slug, node_id = _route(call.body.route)
    message = _message(call.body, slug, node_id)
    return answer(await call.service(InboundService).receive(message, repeatable(call, "inbound")))


def _route(route: dict[str, Any]) -> tuple[str, str]:
    slug, node_id = route.get("workflow_slug"), route.get("trigger_node_id")
    if not (isinstance(slug, str) and slug and isinstance(node_id, str) and node_id):
        raise Invalid(INCOMPLETE)
    return slug, node_id


def _message(body: InboundIn, slug: str, node_id: str) -> InboundMessage:
    sender = body.source.sender
    return InboundMessage(
        workflow_slug=slug,
        trigger_node_id=node_id,
        credential_id=body.credential_id,
        protocol=body.source.protocol,
        chat_id=body.source.chat_id,
        message_id=body.source.message_id,
        sender=None
        if sender is None
        else Sender(id=sender.id, username=sender.username, display_name=sender.display_name),
        text=body.text,
        attachments=tuple(
            Attachment(
                filename=file.filename,
                mime_type=file.mime_type,
                size_bytes=file.size_bytes,
                url=file.download_url,
            )
            for file in body.attachments
        ),
    )


_SOURCE = {
    "protocol": "telegram",
    "chat_id": "5512",
    "message_id": "77",
    "from": {"id": "88120", "username": "lena"},
}

ROUTES = (
    Route(
        "POST",
        "/inbound",
        receive,
        auth=GATEWAY_TOKEN,
        section="inbound",
        summary="Take a message from the message gateway: starts an execution.",
        description=(
            "A text `/confirm_<task_id>` or `/cancel_<task_id>` answers an open question instead: "
            "200. " + REPLAYED
        ),
        body=InboundIn,
        headers=IdempotencyHeaders,
        status=202,
        response=InboundOut,
        also={200: AnsweredOut},
        refuses=(
            Refuses(401, "Invalid gateway token", "another token, or none"),
            Refuses(403, "Sender not allowed", "the credential is kept to other senders"),
            Refuses(404, "Workflow not found", "no such workflow"),
            Refuses(404, "Trigger node not found", "no such active trigger"),
            Refuses(
                409,
                "Idempotency-Key was already used with a different request.",
                "another body or endpoint was sent with this key",
            ),
            Refuses(422, INCOMPLETE, "either is missing or empty"),
            Refuses(422, "Workflow is inactive", "`is_active` is false"),
            Refuses(500, "Gateway token not configured", "the server has no inbound token"),
            Refuses(500, "Execution failed to start", "the engine takes no work"),
        ),
        examples=(
            Example(
                path="/api/v1/inbound",
                body={
                    "route": {
                        "workflow_slug": "support-bot",
                        "trigger_node_id": "trigger_telegram_1",
                    },
                    "credential_id": "shop-bot",
                    "source": _SOURCE,
                    "text": "/confirm_c41f09ab",
                    "timestamp": "2026-02-03T15:00:00Z",
                },
                status=200,
                response={"status": "confirmed", "task_id": "c41f09ab"},
            ),
            Example(
                path="/api/v1/inbound",
                status=202,
                response={
                    "execution_id": "2d0b2a55-8a83-4a54-8f0c-7b2f5f1f0c7e",
                    "status": "pending",
                },
            ),
        ),
    ),
)

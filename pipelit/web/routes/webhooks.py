"""Webhooks over HTTP. Contract: beyond.md §5."""

import msgspec

from pipelit.errors import Invalid, Unauthenticated
from pipelit.services.principal import Principal
from pipelit.services.starts import RepeatableRequest
from pipelit.services.webhooks import WebhookRequest, WebhooksService
from pipelit.web.call import Call
from pipelit.web.models import AnyJson, IdempotencyHeaders, QueryModel
from pipelit.web.problems import explain_values
from pipelit.web.responses import Response
from pipelit.web.routes.repeat import REPLAYED, answer
from pipelit.web.routing import CustomAuth, Example, Knock, Refuses, Route

BAD_KEY = "Invalid or missing API key"
KEY_PARAMETER = "api_key"


class WebhookQuery(QueryModel):
    """`trigger_node_id`: a `trigger_webhook` node of the workflow. Others go to the payload."""

    trigger_node_id: str | None = None


class WebhookOut(msgspec.Struct, frozen=True):
    """The execution that was started."""

    status: str
    execution_id: str
    message: str


async def _check_key(knock: Knock) -> Principal:
    key = knock.bearer or knock.query.get(KEY_PARAMETER)
    if not key:
        raise Unauthenticated(BAD_KEY)
    try:
        return await knock.authenticate(key)
    except Unauthenticated as error:
        raise Unauthenticated(BAD_KEY) from error


WEBHOOK_KEY = CustomAuth(
    name="webhook",
    description=f"An API key as Bearer token, or in the query as `{KEY_PARAMETER}`.",
    query=KEY_PARAMETER,
    check=_check_key,
)


async def receive(call: Call[AnyJson, WebhookQuery, IdempotencyHeaders]) -> Response:
    """Start a workflow from its webhook trigger."""
    query = {name: value for name, value in call.raw_query.items() if name != KEY_PARAMETER}
    problems = list(explain_values(query, "query"))
    if problems:
        raise Invalid(problems=problems)
    key = call.headers.idempotency_key
    repeatable = None
    if key is not None:
        repeatable = RepeatableRequest(key, "webhook", [call.body.root, query])
    arrived = WebhookRequest(
        method="POST",
        headers=call.raw_headers,
        query={name: value for name, value in query.items() if name != "trigger_node_id"},
        body=call.body.root,
    )
    started = await call.service(WebhooksService).receive(
        call.principal,
        call.path.text("slug"),
        arrived,
        trigger_node_id=call.query.trigger_node_id,
        request=repeatable,
    )
    return answer(started)


ROUTES = (
    Route(
        "POST",
        "/webhooks/{slug}",
        receive,
        auth=WEBHOOK_KEY,
        section="webhooks",
        summary="Start a workflow from its webhook trigger.",
        description=(
            "The body is any JSON value or empty. Query, headers and body become the trigger's "
            "payload, without the credentials in them. " + REPLAYED
        ),
        body=AnyJson,
        body_optional=True,
        query=WebhookQuery,
        headers=IdempotencyHeaders,
        response=WebhookOut,
        refuses=(
            Refuses(400, "Workflow is inactive.", "`is_active` is false"),
            Refuses(401, BAD_KEY, "no key, or one that does not count"),
            Refuses(404, "Workflow '<slug>' not found", "no such workflow, or not visible"),
            Refuses(404, "No webhook trigger found.", "none is active, or the named one is none"),
            Refuses(
                409,
                "Idempotency-Key was already used with a different request.",
                "another endpoint, body or query was sent with this key",
            ),
            Refuses(503, "Failed to enqueue workflow execution.", "the engine takes no work"),
        ),
        examples=(
            Example(
                path="/api/v1/webhooks/order-intake?shop=berlin",
                body={"event": "paid", "order": 118},
                response={
                    "status": "accepted",
                    "execution_id": "9d1c6a52-4f5e-4d0a-8a67-2f0f6f7f7b10",
                    "message": "Workflow execution started",
                },
            ),
        ),
    ),
)

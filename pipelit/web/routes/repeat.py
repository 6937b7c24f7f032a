"""Idempotency-Key at the routes that start executions. Contract: README.md §3."""

from typing import Any

from pipelit.services.starts import RepeatableRequest, Started
from pipelit.web.call import Call
from pipelit.web.models import IdempotencyHeaders
from pipelit.web.responses import Response

REPLAYED = (
    "With an `Idempotency-Key` a repeated request gets the first response again, marked "
    "`Idempotent-Replayed: true`, and starts nothing."
)


def repeatable(call: Call[Any, Any, IdempotencyHeaders], endpoint: str) -> RepeatableRequest | None:
    """Return what makes a repetition of this request recognisable; None without the header."""
    key = call.headers.idempotency_key
    return None if key is None else RepeatableRequest(key, endpoint, call.raw_body)


def answer(started: Started) -> Response:
    """Return the response of a start, or the repeated first one."""
    headers = {"Idempotent-Replayed": "true"} if started.replayed else {}
    return Response(status=started.status, body=started.body, headers=headers)

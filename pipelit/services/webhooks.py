"""Webhooks: a request from outside starts a workflow. Contract: beyond.md §5."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipelit.engine.trigger import webhook_trigger
from pipelit.errors import BadRequest, NotFound
from pipelit.services.principal import Principal
from pipelit.services.starts import (
    INACTIVE,
    Fired,
    RepeatableRequest,
    Started,
    Starter,
    choose_trigger,
    find_target,
)
from pipelit.store import Store

NO_TRIGGER = "No webhook trigger found."
ACCEPTED = "Workflow execution started"

_SECRET_HEADERS = frozenset({"authorization", "cookie"})


class WebhookRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived. Header names are in lower case; `query` is without the API key."""

    method: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


class WebhooksService:
    """What the contract's webhook section lets callers do."""

    def __init__(self, store: Store, starter: Starter) -> None:
        self._store = store
        self._starter = starter

    async def receive(
        self,
        principal: Principal,
        slug: str,
        arrived: WebhookRequest,
        *,
        trigger_node_id: str | None,
        request: RepeatableRequest | None,
    ) -> Started:
        """Start a workflow from its webhook trigger.

        Raises:
            NotFound: workflow or trigger.
            BadRequest: the workflow is inactive.
            Conflict: the Idempotency-Key belongs to another request.
            TooLarge: the request does not fit into a trigger.
            Unavailable: the engine takes no work.
        """
        now, missing = self._starter.now(), f"Workflow '{slug}' not found"
        target = await self._store.read(
            lambda conn: find_target(
                conn, principal, slug, "trigger_webhook", request, now=now, missing=missing
            )
        )
        if target.replay is not None:
            return target.replay
        trigger_node = choose_trigger(target.triggers, trigger_node_id)
        if trigger_node is None:
            raise NotFound(NO_TRIGGER)
        if not target.workflow.is_active:
            raise BadRequest(INACTIVE)
        payload = _payload(arrived, trigger_node.node_id)
        new = self._starter.describe(
            Fired(
                workflow=target.workflow,
                trigger_node=trigger_node,
                user_id=principal.user_id,
                source="webhook",
                payload=payload,
                trigger=webhook_trigger(payload),
            )
        )
        body = {"status": "accepted", "execution_id": new.id, "message": ACCEPTED}
        return await self._starter.start(new, Started(body), request)


def _payload(arrived: WebhookRequest, webhook_id: str) -> dict[str, Any]:
    body = arrived.body
    return {
        "payload": body if isinstance(body, dict) else {"value": body},
        "headers": {k: v for k, v in arrived.headers.items() if k not in _SECRET_HEADERS},
        "query": dict(arrived.query),
        "method": arrived.method,
        "webhook_id": webhook_id,
    }

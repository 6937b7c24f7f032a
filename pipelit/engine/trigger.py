"""The normalised `trigger` object of an execution. Contract: engine.md §5.4."""

import re
from typing import Any

from pipelit.engine.values import to_text

_NUMBER = re.compile("-?[1-9][0-9]{0,17}")


def chat_trigger(payload: dict[str, Any], *, user_id: int, user_name: str) -> dict[str, Any]:
    """Normalise what the chat API received (`{"text": …}`)."""
    files = payload.get("files", [])
    return {
        **payload,
        "text": _text(payload),
        "files": files,
        "source": "chat",
        "user_id": user_id,
        "user_name": user_name,
        "payload": {"files": files, **payload, "text": _text(payload)},
    }


def manual_trigger(
    payload: dict[str, Any], *, workflow_slug: str, user_id: int, user_name: str
) -> dict[str, Any]:
    """Normalise a manual run (`{"text": …, "payload"?: {…}}`); the payload's keys win."""
    inner = payload.get("payload") or {}
    return {
        "text": _text(payload),
        "source": "manual",
        "workflow_slug": workflow_slug,
        "user_id": user_id,
        "user_name": user_name,
        "payload": {"text": _text(payload), **inner},
    }


def schedule_trigger(payload: dict[str, Any]) -> dict[str, Any]:
    """Normalise a tick (`{scheduled_job_id, scheduled_job_name, …, "payload": {…}}`)."""
    inner = payload["payload"] | {"scheduled_job_id": payload["scheduled_job_id"]}
    return {**payload, "text": _text(inner), "source": "schedule", "payload": inner}


def webhook_trigger(payload: dict[str, Any]) -> dict[str, Any]:
    """Normalise a request (`{payload, headers, query, method, webhook_id}`)."""
    body = payload["payload"]
    said = [text for text in (body.get("text"), body.get("message")) if isinstance(text, str)]
    return {**payload, "text": said[0] if said else "", "source": "webhook"}


def gateway_trigger(
    payload: dict[str, Any], *, user_name: str, protocol: str, telegram: bool
) -> dict[str, Any]:
    """Normalise a gateway message (`{text, chat_id, message_id, credential_id, user_id, files}`).

    A Telegram trigger sees a numeric chat id as a number (node-types.md 4.2).
    """
    chat_id = payload["chat_id"]
    if telegram and _NUMBER.fullmatch(chat_id):
        chat_id = int(chat_id)
    return {
        **payload,
        "chat_id": chat_id,
        "source": "gateway",
        "user_name": user_name,
        "protocol": protocol,
        "payload": payload,
    }


def workflow_trigger(
    payload: dict[str, Any], *, source_workflow: str, parent_execution_id: str
) -> dict[str, Any]:
    """Normalise what a parent gives its child: `{text, payload}`, or what its mapping says."""
    inner = payload.get("payload")
    return {
        **payload,
        "text": to_text(payload.get("text")),
        "payload": inner if isinstance(inner, dict) else payload,
        "source": "workflow",
        "source_workflow": source_workflow,
        "parent_execution_id": parent_execution_id,
    }


def _text(payload: dict[str, Any]) -> str:
    text = payload.get("text")
    return text if isinstance(text, str) else ""

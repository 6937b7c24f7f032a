"""The normalised `trigger` object of an execution. Contract: engine.md §5.4."""

from typing import Any


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


def _text(payload: dict[str, Any]) -> str:
    text = payload.get("text")
    return text if isinstance(text, str) else ""

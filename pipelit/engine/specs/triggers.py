"""The seven ways an execution begins.

Contract: node-types.md §2–4.
"""

from pipelit.engine.specs.notation import choice, integer, keys, mapping, port, text
from pipelit.engine.specs.types import Port, TypeSpec

ORANGE = "#f97316"

FILES = Port(
    name="files",
    data_type="array",
    port_schema={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "filename": {"type": "string"},
                "mime_type": {"type": "string"},
                "size_bytes": {"type": "integer"},
                "url": {"type": "string"},
            },
            "required": ["filename"],
        },
    },
)


def _trigger(
    component_type: str,
    label: str,
    icon: str,
    description: str,
    outputs: tuple[Port, ...],
    primary_port: str = "payload",
) -> TypeSpec:
    return TypeSpec(
        component_type=component_type,
        label=label,
        category="Triggers",
        icon=icon,
        color=ORANGE,
        role="trigger",
        description=description,
        outputs=outputs,
        primary_port=primary_port,
        config_schema=_SCHEDULE if component_type == "trigger_schedule" else {},
    )


_SCHEDULE = keys(
    interval_seconds=integer(None, 1, 31_536_000, nullable=True),
    cron=text(nullable=True),
    timezone=text("UTC", nullable=True),
    catch_up=choice("one", "skip", "all", default="one"),
    total_repeats=integer(0, 0),
    max_retries=integer(3, 0),
    timeout_seconds=integer(600, 1, 86_400),
    trigger_payload=mapping(),
)

TRIGGERS = (
    _trigger(
        "trigger_chat",
        "Chat Trigger",
        "comments",
        "Starts when a chat client sends a message",
        (port("text", "string"), FILES, port("payload", "object")),
        "text",
    ),
    _trigger(
        "trigger_telegram",
        "Telegram Trigger",
        "telegram",
        "Starts on a Telegram message delivered by the message gateway",
        (port("text", "string"), port("chat_id", "number"), FILES, port("payload", "object")),
        "text",
    ),
    _trigger(
        "trigger_manual",
        "Manual Trigger",
        "hand-pointer",
        "Starts on demand from the editor or the API",
        (port("payload", "object"),),
    ),
    _trigger(
        "trigger_schedule",
        "Schedule Trigger",
        "calendar-days",
        "Starts at a fixed interval or at the times of a cron expression",
        (port("timestamp", "string"), port("payload", "object")),
    ),
    _trigger(
        "trigger_workflow",
        "Workflow Trigger",
        "play",
        "Starts when another workflow calls this one",
        (port("text", "string"), port("payload", "object")),
    ),
    _trigger(
        "trigger_error",
        "Error Trigger",
        "bug",
        "Starts when an execution of this workflow fails",
        (port("error", "object"),),
        "error",
    ),
    _trigger(
        "trigger_webhook",
        "Webhook Trigger",
        "link",
        "Starts when an HTTP request arrives",
        (
            port("payload", "object"),
            port("text", "string"),
            port("headers", "object"),
            port("query", "object"),
        ),
    ),
)

"""What handles a failure: its trigger and what it is told. Contract: engine.md §5.4, §17.2–17.3."""

import msgspec
import pytest

from pipelit.engine.definition import NodeDef
from pipelit.engine.error_dispatch import (
    HANDLER_TRIGGERS,
    RunFailure,
    error_payload,
    error_trigger,
    first_trigger,
)

FAILURE = RunFailure(
    execution_id="e1",
    workflow_slug="flow",
    message="no",
    error_code="Odd",
    node_id="a",
    node_type="merge",
    timestamp="2026-02-03T09:00:07",
)


def node(row: int, component_type: str, **config: object) -> NodeDef:
    return NodeDef(id=row, node_id=f"n{row}", component_type=component_type, config=config)


def test_the_chat_of_the_failed_run_is_kept() -> None:
    """So that a reply reaches who asked."""
    trigger = {"chat_id": 5512, "credential_id": "bot", "user_id": "88", "text": "hi", "files": []}

    payload = error_payload(FAILURE, trigger)

    assert {name: payload[name] for name in payload if name != "error"} == {
        "chat_id": 5512,
        "credential_id": "bot",
        "user_id": "88",
    }
    assert error_payload(FAILURE, {}).keys() == {"error"}


def test_a_handler_is_told_in_words_too() -> None:
    """The trigger keeps the payload and says what went wrong."""
    payload = error_payload(FAILURE, {"chat_id": "1"})

    trigger = error_trigger(payload)

    assert trigger == payload | {
        "text": "Error in node a: no",
        "source": "error",
        "payload": payload,
    }
    nowhere = msgspec.structs.replace(FAILURE, node_id=None, node_type=None)
    assert error_trigger(error_payload(nowhere, {}))["text"] == "Error: no"


@pytest.mark.parametrize(
    ("triggers", "chosen"),
    [
        ([], None),
        ([node(1, "trigger_chat")], None),
        ([node(1, "trigger_manual"), node(2, "trigger_workflow"), node(3, "trigger_error")], 3),
        ([node(1, "trigger_manual"), node(2, "trigger_error", is_active=False)], 1),
        ([node(1, "trigger_error"), node(2, "trigger_error")], 1),
        ([node(1, "trigger_error"), node(2, "trigger_error", priority=5)], 2),
    ],
)
def test_the_first_type_that_has_an_active_trigger_counts(
    triggers: list[NodeDef], chosen: int | None
) -> None:
    """Among its triggers the highest priority, then the lowest id."""
    found = first_trigger(triggers, HANDLER_TRIGGERS)

    assert (found and found.id) == chosen

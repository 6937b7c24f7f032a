"""The demo's workflow: an agent with a calculator, a switch, and two ways to reply."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelit.llm.scripted import DEMO_MODEL, Ask, Move, Say, demo_script

SLUG = "demo"
HEAD: Mapping[str, Any] = {
    "name": "Demo",
    "slug": SLUG,
    "description": "A chat message goes to an agent with a calculator, then to one of two replies.",
    "tags": ["demo"],
}
EDGES: Sequence[Mapping[str, Any]] = (
    {"source_node_id": "chat_in", "target_node_id": "agent"},
    {"source_node_id": "model", "target_node_id": "agent", "edge_label": "llm"},
    {"source_node_id": "calculator", "target_node_id": "agent", "edge_label": "tool"},
    {"source_node_id": "agent", "target_node_id": "is_sum"},
    {"source_node_id": "is_sum", "target_node_id": "reply_sum", "edge_type": "conditional",
     "condition_value": "sum"},
    {"source_node_id": "is_sum", "target_node_id": "reply_other", "edge_type": "conditional",
     "condition_value": "__other__"},
)  # fmt: skip
SLOW_PAUSE = 0.6
"""Seconds between two words when the model was asked to be slow: time to kill the server."""

VERY_SLOW_PAUSE = 2.0
"""The same when it was asked to be very slow: time to do it by hand."""


def build_nodes(credential_id: int) -> list[dict[str, Any]]:
    """Return the nodes, their model reached with this credential."""
    rule = {"id": "sum", "field": "agent.output", "operator": "contains", "value": " is "}
    model = {"llm_credential_id": credential_id, "model_name": DEMO_MODEL}
    return [
        _node("chat_in", "trigger_chat"),
        _node("model", "ai_model", **model),
        _node("calculator", "calculator"),
        _node("agent", "agent", system_prompt="Answer in one sentence; use the calculator."),
        _node("is_sum", "switch", extra_config={"rules": [rule], "enable_fallback": True}),
        _node("reply_sum", "reply_chat", extra_config={"message": "{{ agent.output }}"}),
        _node("reply_other", "reply_chat", extra_config={"message": "{{ agent.output }}"}),
    ]


def demo_model(ask: Ask) -> Move:
    """Play the scripted model; word by word when the question says `slowly`."""
    move = demo_script(ask)
    found = re.search(r"\b(very )?slowly\b", ask.last_text("user"), re.IGNORECASE)
    if isinstance(move, Say) and found:
        return Say(move.pieces, VERY_SLOW_PAUSE if found[1] else SLOW_PAUSE)
    return move


def _node(node_id: str, component_type: str, **config: Any) -> dict[str, Any]:
    return {"node_id": node_id, "component_type": component_type, "config": config}

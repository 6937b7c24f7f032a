"""What a run shows of its results: final output, event output, delivery text.

Contract: engine.md §18.4, §19; websocket.md "node_status".
"""

from typing import Any

import msgspec

from pipelit.engine.graph import Plan
from pipelit.engine.journal import RunState
from pipelit.engine.outcome import Outcome

MAX_EVENT_STRING = 2048
MAX_EVENT_BYTES = 64 * 1024
MAX_EVENT_ERROR = 500
MAX_ERROR = 2000


def visible_ports(ports: dict[str, Any]) -> dict[str, Any]:
    """Return the ports without `messages`, which logs show as `metadata.trace`."""
    return {name: value for name, value in ports.items() if name != "messages"}


def event_output(ports: dict[str, Any]) -> dict[str, Any]:
    """Return the ports as an event carries them: long strings cut, nothing over 64 KiB."""
    cut: dict[str, Any] = _cut(visible_ports(ports))
    too_long = len(msgspec.json.encode(cut)) > MAX_EVENT_BYTES
    return {"_truncated": True} if too_long else cut


def _cut(value: Any) -> Any:
    match value:
        case str() if len(value) > MAX_EVENT_STRING:
            return value[:MAX_EVENT_STRING] + "..."
        case dict():
            return {key: _cut(item) for key, item in value.items()}
        case list() | tuple():
            return [_cut(item) for item in value]
        case _:
            return value


def promoted(plan: Plan, node_id: str, outcome: Outcome, state: RunState) -> Outcome:
    """Make the text of a final agent the execution's output, where nothing else will set it."""
    node = plan.nodes[node_id]
    if (
        node.component_type in {"agent", "deep_agent"}
        and plan.ends_here(node_id)
        and not plan.has_type("reply_chat")
        and state.output is msgspec.UNSET
        and outcome.output is msgspec.UNSET
    ):
        return msgspec.structs.replace(outcome, output=outcome.ports.get("output", ""))
    return outcome


def final_output(state: RunState) -> dict[str, Any] | None:
    """Choose the execution's final output; the first rule of engine.md §18.4 that applies."""
    if state.output is not msgspec.UNSET:
        return {"output": state.output}
    spoken = [m.text for m in state.messages if m.role == "assistant" and m.text]
    if spoken:
        return {"message": spoken[-1]}
    outputs = {
        node: visible_ports(ports)
        for node, ports in state.node_outputs.items()
        if node != state.plan.snapshot.trigger_node_id and ports
    }
    if outputs:
        return {"node_outputs": outputs}
    return {"message": state.messages[-1].text} if state.messages else None


def reply_text(output: dict[str, Any] | None) -> str | None:
    """Return the text a chat transcript keeps of a final output; None if it is no text."""
    for key in ("output", "message"):
        value = (output or {}).get(key)
        if isinstance(value, str):
            return value or None
    return None


def delivery_text(output: dict[str, Any] | None) -> str:
    """Return the text a chat gets of a final output; empty: nothing is sent. engine.md §19."""
    match output or {}:
        case {"node_outputs": dict(outputs)}:
            return "\n\n".join(f"**{node}**: {_string(value)}" for node, value in outputs.items())
        case {"output": value} | {"message": value}:
            return _string(value)
        case _:
            return ""


def _string(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def state_view(
    state: RunState, node_id: str, *, execution: dict[str, Any], user_context: dict[str, Any]
) -> dict[str, Any]:
    """Build the state object a node sees (engine.md §18.1), as of now.

    Args:
        execution: `execution_id`, `workflow_id`, `workflow_slug`.
        user_context: what is known of the user from the start; nodes may only add to it.
    """
    added = state.patch.get("user_context")
    return {
        **state.patch,
        **execution,
        "messages": [message.to_json() for message in state.messages],
        "trigger": state.trigger,
        "user_context": {**(added if isinstance(added, dict) else {}), **user_context},
        "route": state.route_of(node_id),
        "node_outputs": dict(state.node_outputs),
        "node_results": {node: result.to_json() for node, result in state.results.items()},
        "current_node": node_id,
        "loop": state.loop_view(node_id),
        "output": None if state.output is msgspec.UNSET else state.output,
        "resume_input": state.answers.get(node_id),
    }

"""The `workflow` node: runs another workflow and gives out its result.

Contract: node-types.md §10.9, engine.md §15.
"""

from typing import Any

from pipelit.engine.outcome import Outcome
from pipelit.engine.output import delivery_text
from pipelit.engine.paths import read_state_path
from pipelit.engine.values import to_text
from pipelit.engine.wire import node_status
from pipelit.nodes.base import NodeCall, NodeError, RunEvent
from pipelit.nodes.children import ChildBatch, ChildCall, child_timeout


async def subworkflow(call: NodeCall) -> Outcome:
    """Start the child, wait for it, and give out its final output."""
    if call.run is None:
        raise TypeError("a subworkflow runs only inside an execution")
    wanted = ChildCall(
        target=to_text(call.extra.get("target_workflow")).strip(),
        target_id=call.node.subworkflow_id,
        payload=child_payload(call),
        explicit=call.extra.get("trigger_mode") == "explicit",
    )
    batch = ChildBatch(
        key=call.identity.idempotency_key, calls=(wanted,), timeout=child_timeout(call.extra)
    )

    def tell(ids: tuple[str, ...]) -> list[RunEvent]:
        data = node_status(
            call.identity.execution_id, call.node, "waiting", child_execution_ids=list(ids)
        )
        return [RunEvent("node_status", data)]

    (end,) = await call.run.run_children(batch, tell)
    if end.error is not None:
        raise NodeError(end.error, code="ChildExecutionError", retryable=False)
    return Outcome(ports={"output": end.final_output, "text": delivery_text(end.final_output)})


def child_payload(call: NodeCall) -> dict[str, Any]:
    """Return what the child's trigger receives: what the mapping says, else all there is."""
    mapping = call.node.extra.get("input_mapping")
    trigger = call.state["trigger"]
    if not isinstance(mapping, dict) or not mapping:
        everything = {"trigger": trigger, "node_outputs": call.state["node_outputs"]}
        return {"text": to_text(trigger.get("text")), "payload": everything}
    rendered = call.extra.get("input_mapping") or {}
    return {key: _mapped(call, value, rendered.get(key)) for key, value in mapping.items()}


def _mapped(call: NodeCall, value: Any, rendered: Any) -> Any:
    if not isinstance(value, str):
        return value
    return rendered if "{{" in value else read_state_path(call.state, value)

"""The `reply_chat` node: sets the execution's output. Contract: node-types.md §10.11."""

from pipelit.engine.outcome import Outcome
from pipelit.engine.values import to_text
from pipelit.nodes.base import NodeCall


async def reply_chat(call: NodeCall) -> Outcome:
    """Answer with the node's prompt, or else its message."""
    text = to_text(call.config.get("system_prompt")) or to_text(call.extra.get("message"))
    return Outcome(ports={"output": text}, output=text)

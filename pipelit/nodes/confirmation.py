"""The `human_confirmation` node: it runs with the answer that a person gave.

The engine asks, and ends the run after a rejection that nobody minds. Contract: node-types.md 10.7.
"""

from pipelit.engine.outcome import Outcome
from pipelit.engine.questions import is_confirmed
from pipelit.engine.values import to_text
from pipelit.nodes.base import NodeCall


async def human_confirmation(call: NodeCall) -> Outcome:
    """Turn the answer into a route. No answer is a rejection."""
    answer = to_text(call.state["resume_input"])
    confirmed = is_confirmed(answer)
    return Outcome(
        ports={"confirmed": confirmed, "user_response": answer},
        route="confirmed" if confirmed else "cancelled",
    )

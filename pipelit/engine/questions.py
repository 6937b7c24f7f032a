"""Questions to people: which nodes ask, in what words, and what an answer means.

Contract: engine.md §16, node-types.md 10.7.
"""

from typing import Literal, TypeAlias

from pipelit.engine.definition import NodeDef, flow_targets
from pipelit.engine.graph import Plan

When = Literal["before", "after"]
Verdict = Literal["go_on", "refused", "expired"]

Asking: TypeAlias = tuple[str, str, When]
"""Who asks: a node in an iteration, before or after it runs."""

DEFAULT_PROMPT = "Please confirm to proceed."

_YES = frozenset({"yes", "confirm", "true", "y", "1"})
_NO = frozenset({"cancel", "no", "n", "reject", "false", "0"})
_GUARDS = frozenset({"switch", "router"})


def is_confirmation(node: NodeDef) -> bool:
    """Tell whether asking is what the node is for."""
    return node.component_type == "human_confirmation"


def asks_before(node: NodeDef) -> bool:
    """Tell whether a person is asked before the node runs."""
    return node.interrupt_before or is_confirmation(node)


def flag_prompt(node_id: str, when: When) -> str:
    """Return the words of a question that a flag asks."""
    moment = "before" if when == "before" else "after"
    return f"Confirmation required at node '{node_id}' ({moment} execution)."


def is_confirmed(answer: str) -> bool:
    """Tell whether a confirmation's answer is a yes; anything else rejects."""
    return answer.strip().lower() in _YES


def judge(node: NodeDef, when: When, answer: str | None) -> Verdict:
    """Say what an answer means for the run; None: nobody answered in time.

    A confirmation always goes on: its node says what a rejection means.
    """
    if when == "before" and is_confirmation(node):
        return "go_on"
    if answer is None:
        return "expired"
    return "refused" if answer.strip().lower() in _NO else "go_on"


def rejection_ends(plan: Plan, node_id: str) -> bool:
    """Tell whether a rejected confirmation ends the run: a rejected action never runs unguarded."""
    node = plan.nodes[node_id]
    match node.extra.get("on_reject"):
        case "continue":
            return False
        case "cancel":
            return True
        case _:
            successors = {t for edge in plan.outgoing.get(node_id, ()) for t in flow_targets(edge)}
            types = {plan.nodes[name].component_type for name in successors if name in plan.nodes}
            return not types & _GUARDS

"""The `human_confirmation` node. Contract: node-types.md 10.7."""

import pytest

from pipelit.nodes.confirmation import human_confirmation
from tests.nodes.calls import call


@pytest.mark.parametrize("answer", ["yes", " Confirm\n", "TRUE", "y", "1"])
async def test_a_yes_confirms(answer: str) -> None:
    """In any case and with any space around; the text stays as it was given."""
    outcome = await human_confirmation(call(state={"resume_input": answer}))

    assert outcome.ports == {"confirmed": True, "user_response": answer}
    assert outcome.route == "confirmed"


@pytest.mark.parametrize("answer", ["", "no", "yes please", "ja", "0", "confirmed", None])
async def test_anything_else_rejects(answer: str | None) -> None:
    """No answer is no yes."""
    outcome = await human_confirmation(call(state={"resume_input": answer}))

    assert outcome.ports == {"confirmed": False, "user_response": answer or ""}
    assert outcome.route == "cancelled"

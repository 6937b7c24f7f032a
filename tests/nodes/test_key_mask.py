"""The key of an agent's account reaches the model only. Contract: node-types.md §8.1."""

import json

import pytest

from pipelit.engine.messages import ToolCall
from pipelit.nodes.base import ToolContext
from tests.nodes.agents import Port, Script, calls, run_agent, says

KEY = "k3y-of-an-agent-u3Rk9_aQ"
CREATE = calls(ToolCall("c1", "create_agent_user", {"a": 1}))


async def give_key(arguments: dict[str, object], context: ToolContext) -> str:
    return json.dumps({"success": True, "api_key": KEY})


async def use_key(arguments: dict[str, object], context: ToolContext) -> str:
    return f"used {KEY}"


async def test_a_key_is_the_model_s_alone():
    """Not in events, traces, outputs, or what is remembered; however it is quoted."""
    script = Script(
        CREATE,
        calls(ToolCall("c2", "platform_api", {"a": 1}), text=f"Now with {KEY}"),
        says(f"Done: {KEY}"),
    )
    port = Port()

    outcome = await run_agent(
        script,
        port,
        tools={"create_agent_user": give_key, "platform_api": use_key},
        conversation_memory=True,
    )
    told = [event.data for _, events in port.saves for event in events]
    shown = [outcome.ports, outcome.messages, outcome.spoken, outcome.remember, outcome.report]

    assert KEY in str(script.requests[-1].messages)
    assert KEY not in str(told)
    assert KEY not in str(port.reports)
    assert KEY not in str(shown)
    assert outcome.ports["output"] == "Done: ****"
    assert "chat_message Now with ****" in port.told()


async def test_a_key_that_the_model_brings_is_hidden_too():
    """As an argument; what is too short to be one stays."""
    script = Script(
        calls(ToolCall("c1", "add", {"a": 1, "api_key": KEY})),
        calls(ToolCall("c2", "add", {"a": 1, "api_key": "done"})),
        says(f"{KEY} done"),
    )

    outcome = await run_agent(script, Port(), tools={"add": use_key})

    assert KEY not in str(outcome.report.trace)
    assert outcome.ports["output"] == "**** done"


async def test_a_run_that_goes_on_later_still_knows_its_keys():
    """After a crash, from what was saved."""
    before = Port()
    script = Script(CREATE, ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        await run_agent(script, before, tools={"create_agent_user": give_key})
    # The ids of a test repeat.
    messages = [{**saved, "id": f"old-{saved['id']}"} for saved in before.last["messages"]]
    results = {name: {**saved, "id": "old"} for name, saved in before.last["results"].items()}
    after = Port(progress={**before.last, "messages": messages, "results": results})

    outcome = await run_agent(Script(says(KEY)), after, tools={"create_agent_user": give_key})

    assert outcome.ports["output"] == "****"
    assert KEY not in str(after.reports)

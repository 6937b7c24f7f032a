"""An agent with five tools, against a provider that does everything a provider can do.

Contract: engine.md §11.1, §11.2, §22.4, §24.4, §25.1.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.kit.api import Api, node_events
from tests.kit.model_server import ModelCall, ModelServer
from tests.kit.site import People

pytestmark = pytest.mark.slow

TOOLS = ("calculator", "datetime", "memory_read", "memory_write", "whoami")
USED = {"prompt_tokens": 1, "completion_tokens": 1}


async def start(api: Api, slug: str, provider: ModelServer, **extra: Any) -> str:
    """Build the agent `ag` with its five tools, and say "go" to it."""
    credential = await api.add_model(provider.url)
    model = {"llm_credential_id": credential, "model_name": "demo-1"}
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "t": ("trigger_chat", {}),
        "m": ("ai_model", model),
        "ag": ("agent", {"extra_config": extra}),
        **{name: (name, {}) for name in TOOLS},
    }
    tools = ", ".join(f"{name} -> ag : tool" for name in TOOLS)
    await api.build(slug, nodes, f"t -> ag, m -> ag : llm, {tools}")
    return await api.chat(slug, "go")


async def call_tools(call: ModelCall, *wanted: tuple[str, str], first: int = 0) -> None:
    """Answer with calls of tools: names, and arguments as the provider sends them."""
    calls = [
        {
            "index": index,
            "id": f"c{first + index}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for index, (name, arguments) in enumerate(wanted)
    ]
    await call.stream(
        [
            {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": USED},
        ]
    )


def results(call: ModelCall) -> list[str]:
    """Return what the model reads of its tools, in order."""
    return [m["content"] for m in call.body["messages"] if m["role"] == "tool"]


def told(events: Sequence[Any], node_id: str, status: str) -> Any:
    """Return the data of the event that says a node has a status."""
    (found,) = [
        event["data"]
        for event in events
        if event["data"].get("node_id") == node_id and event["data"].get("status") == status
    ]
    return found


async def test_all_calls_of_an_answer_are_made_and_a_failed_one_is_told(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Their results come in the order of the calls; the node succeeds."""
    execution = await start(people.olga, slug, provider)
    first = await provider.next_call()
    await call_tools(
        first,
        ("calculator", '{"expression": "12*17"}'),
        ("get_datetime", "{}"),
        ("remember", f'{{"key": "{slug}", "value": "yes"}}'),
        ("calculator", '{"expression": "1/0"}'),
        ("whoami", "{}"),
        ("recall", '{"key": "no such key"}'),
        ("teleport", "{}"),
    )
    second = await provider.next_call()
    await second.say("204")
    detail = await people.olga.wait_end(execution)
    events = await people.olga.events(execution)

    offered = [tool["function"]["name"] for tool in first.body["tools"]]
    assert len(offered) == 5
    given = results(second)
    assert given[0] == "204"
    assert given[2] == f"Remembered: {slug} = yes (created)"
    assert given[3] == "Error: division by zero"
    assert given[5:] == [
        "No memory found for key: no such key",
        "Error: unknown tool 'teleport'",
    ]
    assert (detail["status"], detail["final_output"]) == ("completed", {"output": "204"})
    assert detail["llm_calls"] == 2
    failed = told(events, "calculator", "failed")
    assert (failed["error"], failed["error_code"]) == ("division by zero", "ToolError")
    assert failed["parent_node_id"] == "ag"
    assert sorted(node_events(events, "calculator")) == ["failed", "running", "running", "success"]


@pytest.mark.parametrize("arguments", ['{"expression": ', '["1+1"]', '{"sum": "1+1"}'])
async def test_arguments_that_do_not_fit_are_told(
    people: People, slug: str, provider: ModelServer, arguments: str
) -> None:
    """No JSON, no object, or not what the tool takes; the model may try again."""
    execution = await start(people.olga, slug, provider)
    await call_tools(await provider.next_call(), ("calculator", arguments))
    second = await provider.next_call()
    await second.say("Sorry.")
    detail = await people.olga.wait_end(execution)

    (given,) = results(second)
    assert given.startswith("Error: invalid arguments for tool 'calculator': ")
    assert detail["status"] == "completed"


async def test_a_stream_without_an_end_is_cut_at_the_agents_deadline(
    people: People, slug: str, provider: ModelServer
) -> None:
    """However much it sends; the connection is closed, and nothing is tried again."""
    execution = await start(people.olga, slug, provider, max_wall_time=1)
    call = await provider.next_call()
    await call.begin()
    piece = {"choices": [{"index": 0, "delta": {"content": "la "}, "finish_reason": None}]}
    await call.send_events([piece] * 3)
    detail = await people.olga.wait_end(execution)
    await call.wait_gone()

    assert (detail["status"], detail["error_code"]) == ("failed", "AgentTimeoutError")
    assert detail["error_message"] == "Node ag failed: Agent exceeded max_wall_time (1s)"
    assert provider.waiting_calls == 0
    (log,) = [entry for entry in detail["logs"] if entry["node_id"] == "ag"]
    assert [w["code"] for w in log["metadata"]["warnings"]] == ["usage_missing"]


async def test_a_provider_that_is_busy_is_asked_again_when_it_says(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Within the attempt; it counts as one call."""
    execution = await start(people.olga, slug, provider)
    await (await provider.next_call()).respond(
        429, {"error": {"message": "slow down"}}, retry_after="1"
    )
    await (await provider.next_call()).say("Done.")
    detail = await people.olga.wait_end(execution)

    assert (detail["status"], detail["llm_calls"]) == ("completed", 1)
    assert len([entry for entry in detail["logs"] if entry["node_id"] == "ag"]) == 1


OVERFLOW = {"error": {"message": "Too long.", "code": "context_length_exceeded"}}


async def test_a_prompt_that_is_too_long_is_shortened_once(
    people: People, slug: str, provider: ModelServer
) -> None:
    """The oldest rounds go; what the agent did is kept."""
    execution = await start(people.olga, slug, provider)
    await call_tools(await provider.next_call(), ("calculator", '{"expression": "1+1"}'))
    await call_tools(await provider.next_call(), ("calculator", '{"expression": "2+2"}'), first=1)
    await (await provider.next_call()).respond(400, OVERFLOW)
    again = await provider.next_call()
    await again.say("Done.")
    detail = await people.olga.wait_end(execution)

    assert results(again) == ["4"]
    assert (detail["status"], detail["llm_calls"]) == ("completed", 4)
    (log,) = [entry for entry in detail["logs"] if entry["node_id"] == "ag"]
    assert [m["role"] for m in log["metadata"]["trace"]].count("tool") == 2


async def test_a_prompt_that_cannot_be_shortened_fails(
    people: People, slug: str, provider: ModelServer
) -> None:
    """A 400 is not tried again."""
    execution = await start(people.olga, slug, provider)
    await (await provider.next_call()).respond(400, OVERFLOW)
    detail = await people.olga.wait_end(execution)

    assert (detail["status"], detail["error_code"]) == ("failed", "BadRequestError")
    assert detail["llm_calls"] == 1
    assert detail["error_message"] == "Node ag failed: provider returned HTTP 400"

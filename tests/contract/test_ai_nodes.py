"""Nodes that classify, extract, remember and recognise, in a running server.

Contract: node-types.md §5.3, §5.5, §9, §10.8, engine.md §9.2.
"""

from typing import Any

import pytest

from tests.kit.api import Api, node_events
from tests.kit.model_server import ModelCall, ModelServer
from tests.kit.site import People

pytestmark = pytest.mark.slow


async def build(
    api: Api,
    slug: str,
    provider: ModelServer,
    nodes: dict[str, tuple[str, dict[str, Any]]],
    edges: str,
) -> None:
    """Build a workflow with a chat trigger `t` and a model `m`."""
    credential = await api.add_model(provider.url)
    model = {"llm_credential_id": credential, "model_name": "demo-1"}
    common: dict[str, tuple[str, dict[str, Any]]] = {
        "t": ("trigger_chat", {}),
        "m": ("ai_model", model),
    }
    await api.build(slug, {**common, **nodes}, edges)


def prompt_of(call: ModelCall) -> str:
    return str(call.body["messages"][0]["content"])


async def call_tool(call: ModelCall, name: str, arguments: str) -> None:
    function = {"name": name, "arguments": arguments}
    calls = [{"index": 0, "id": f"c-{name}", "type": "function", "function": function}]
    await call.stream(
        [
            {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
        ]
    )


async def test_a_category_decides_the_branch(
    people: People, slug: str, provider: ModelServer
) -> None:
    """The switch reads it as the route; nothing of the answer is said or streamed."""
    categories = [{"name": "billing"}, {"name": "technical"}]
    parser = {"parser_type": "json"}
    await build(
        people.olga,
        slug,
        provider,
        {
            "cat": ("categorizer", {"extra_config": {"categories": categories}}),
            "p": ("output_parser", {"extra_config": parser}),
            "s": ("switch", {}),
            "yes": ("reply_chat", {"extra_config": {"message": "T: {{ cat.category }}"}}),
            "no": ("reply_chat", {"extra_config": {"message": "B"}}),
        },
        "m -> cat : llm, p -> cat : output_parser, t -> cat, cat -> s, "
        "s -> yes = technical, s -> no = billing",
    )

    execution = await people.olga.chat(slug, "I can't log in")
    await (await provider.next_call()).say('{"category": "technical"}')
    detail = await people.olga.wait_end(execution)

    assert detail["final_output"] == {"output": "T: technical"}
    assert detail["llm_calls"] == 1
    events = await people.olga.events(execution)
    assert not [e for e in events if e["type"] in ("chat_delta", "chat_message")]
    assert node_events(events, "no") == ["skipped"]
    log = next(entry for entry in detail["logs"] if entry["node_id"] == "cat")
    assert log["input"] == {"text": "I can't log in"}
    assert log["metadata"]["model"] == "demo-1"


async def test_extracted_fields_feed_the_nodes_after(
    people: People, slug: str, provider: ModelServer
) -> None:
    """A useless answer is repaired; an aggregate of a field is in the reply."""
    schema = {"n": "integer", "name": "string | null"}
    await build(
        people.olga,
        slug,
        provider,
        {
            "x": ("extractor", {"extra_config": {"extraction_schema": schema}}),
            "all": ("merge", {}),
            "first": ("aggregator", {"extra_config": {"operation": "first", "field": "n"}}),
            "say": (
                "reply_chat",
                {"extra_config": {"message": "{{ x.extracted.name }}: {{ first.aggregated }}"}},
            ),
        },
        "m -> x : llm, t -> x, x -> all, all -> first, first -> say",
    )

    execution = await people.olga.chat(slug, "Ann has five")
    await (await provider.next_call()).say("Ann has five.")
    await (await provider.next_call()).say('{"name": "Ann", "n": "5"}')
    detail = await people.olga.wait_end(execution)

    assert detail["final_output"] == {"output": "Ann: 5"}


async def test_an_answer_that_is_no_object_fails_the_execution(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Not retried; both calls are paid for."""
    await build(
        people.olga,
        slug,
        provider,
        {"x": ("extractor", {"extra_config": {"extraction_schema": {"a": "string"}}})},
        "m -> x : llm, t -> x",
    )

    execution = await people.olga.chat(slug, "hi")
    for _ in range(2):
        await (await provider.next_call()).say("no")
    detail = await people.olga.wait_end(execution)

    assert (detail["status"], detail["error_code"]) == ("failed", "ExtractionError")
    assert detail["llm_calls"] == 2


async def test_people_are_recognised_and_facts_remembered(
    people: People, slug: str, provider: ModelServer
) -> None:
    """identify_user fills user_context; what one run remembers the next one recalls."""
    await build(
        people.olga,
        slug,
        provider,
        {
            "who": ("identify_user", {}),
            "a": (
                "agent",
                {
                    "system_prompt": "You talk to {{ user_context.display_name }} "
                    "(new: {{ who.is_new_user }})."
                },
            ),
            "w": ("memory_write", {}),
            "r": ("memory_read", {}),
            "i": ("whoami", {}),
        },
        "m -> a : llm, w -> a : memory, r -> a : tool, i -> a : tool, t -> who, who -> a",
    )
    key = f"city of {slug}"

    first = await people.olga.chat(slug, "I live in Bern")
    call = await provider.next_call()
    assert prompt_of(call) == "You talk to olga (new: True)."
    await call_tool(call, "remember", f'{{"key": "{key}", "value": "Bern"}}')
    call = await provider.next_call()
    assert call.body["messages"][-1]["content"] == f"Remembered: {key} = Bern (created)"
    await call.say("Noted.")
    await people.olga.wait_end(first)

    second = await people.olga.chat(slug, "Where do I live?")
    call = await provider.next_call()
    assert prompt_of(call) == "You talk to olga (new: False)."
    await call_tool(call, "recall", f'{{"key": "{key}"}}')
    call = await provider.next_call()
    assert call.body["messages"][-1]["content"] == f"{key} = Bern"
    await call_tool(call, "whoami", "{}")
    call = await provider.next_call()
    assert f"/api/v1/workflows/{slug}/nodes/a/" in call.body["messages"][-1]["content"]
    await call.say("In Bern.")
    detail = await people.olga.wait_end(second)

    assert detail["final_output"] == {"output": "In Bern."}
    events = await people.olga.events(second)
    assert node_events(events, "r") == ["running", "success"]
    facts = (await people.ada.get("/memories/facts/?limit=1000"))["items"]
    (fact,) = [fact for fact in facts if fact["key"] == key]
    assert (fact["value"], fact["access_count"], fact["scope"]) == ("Bern", 1, "global")


async def test_a_tool_that_fails_is_told_and_shown_as_failed(
    people: People, slug: str, provider: ModelServer
) -> None:
    """The model reads the contract's words; the event says `failed`; the run goes on."""
    await build(
        people.olga,
        slug,
        provider,
        {
            "a": ("agent", {}),
            "s": ("web_search", {"extra_config": {"searxng_url": "http://127.0.0.1:9"}}),
        },
        "m -> a : llm, s -> a : tool, t -> a",
    )

    execution = await people.olga.chat(slug, "search")
    await call_tool(await provider.next_call(), "web_search", '{"query": "x"}')
    call = await provider.next_call()
    told = "Search error: blocked address: 127.0.0.1 (127.0.0.1)"
    assert call.body["messages"][-1]["content"] == told
    await call.say("Sorry.")
    detail = await people.olga.wait_end(execution)

    assert detail["status"] == "completed"
    assert node_events(await people.olga.events(execution), "s") == ["running", "failed"]

"""recall and remember: what they are, what they say, what they refuse."""

import json

import pytest

from pipelit.nodes.base import ToolError
from pipelit.nodes.memory import (
    Fact,
    MemoryFailed,
    Procedure,
    memory_read_tools,
    memory_write_tools,
    read_options,
)
from tests.nodes.calls import node, services, tool_context
from tests.nodes.model_nodes import FakeMemory

ANN = Fact(key="user_name", value="Ann")
SHOWN = {"key": "user_name", "value": "Ann", "confidence": 1.0}


def recall_of(memory, **extra):
    (tool,) = memory_read_tools(node(), {"extra_config": extra}, services(), memory=memory)
    return tool


def remember_of(memory, **extra):
    (tool,) = memory_write_tools(node(), {"extra_config": extra}, services(), memory=memory)
    return tool


async def recall(memory, /, key="", query="", **extra):
    return await recall_of(memory, **extra).run({"key": key, "query": query}, tool_context())


async def remember(memory, /, key="city", value="Bern", fact_type="", **extra):
    arguments = {"key": key, "value": value, "fact_type": fact_type}
    return await remember_of(memory, **extra).run(arguments, tool_context())


def test_the_tools_are_what_the_model_is_offered():
    """Names, descriptions and parameters are the contract's."""
    reading, writing = recall_of(FakeMemory()).spec, remember_of(FakeMemory()).spec

    assert (reading.name, writing.name) == ("recall", "remember")
    assert reading.description == (
        "Look up memory by key, search it by query, or list it when called without arguments."
    )
    assert writing.description == "Store a fact under a key."
    assert reading.parameters["required"] == []
    assert writing.parameters["required"] == ["key", "value"]
    assert writing.parameters["properties"]["fact_type"]["default"] == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"key": "user_name"}, "user_name = Ann"),
        ({"key": "user_name", "query": "x"}, "user_name = Ann"),
        ({"key": "size"}, 'size = {"cm": 180}'),
        ({"key": "user"}, json.dumps([SHOWN])),
        ({"key": "none"}, "No memory found for key: none"),
        ({"query": "ann"}, json.dumps([SHOWN])),
        ({"query": "none"}, "No memories found for query: none"),
        (
            {"query": " "},
            json.dumps([SHOWN, {"key": "size", "value": {"cm": 180}, "confidence": 1.0}]),
        ),
    ],
)
async def test_recall_answers_by_key_by_query_or_with_a_list(arguments, told):
    """The key wins over the query; what is no text is JSON."""
    memory = FakeMemory(ANN, Fact(key="size", value={"cm": 180}))

    assert await recall(memory, **arguments) == told


async def test_an_empty_memory_says_so():
    """Called without arguments."""
    assert await recall(FakeMemory()) == "Memory is empty — no facts stored."


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        (None, ["fact"]),
        ("facts", ["fact"]),
        ("procedures", ["procedure"]),
        ("episodes", ["episode"] * 5),
        ("all", ["fact", "procedure", *["episode"] * 5]),
        ("dreams", ["fact"]),
    ],
)
async def test_a_query_searches_the_configured_kinds(kind, types):
    """Facts, then procedures, then at most five episodes."""
    memory = FakeMemory(ANN)
    memory.procedures = [Procedure("greet", "Say hello")]
    memory.episodes = [f"ann {n}" for n in range(7)]

    found = json.loads(await recall(memory, query="ann", memory_type=kind))

    assert [entry.get("type", "fact") for entry in found] == types
    assert {"type": "procedure", "name": "greet", "description": "Say hello"} in found or (
        "procedure" not in types
    )


@pytest.mark.parametrize(
    ("extra", "limit", "confidence"),
    [
        ({}, 10, 0.5),
        ({"limit": "3", "min_confidence": "0.9"}, 3, 0.9),
        ({"limit": 1000, "min_confidence": 7}, 100, 1.0),
        ({"limit": 0, "min_confidence": -1}, 1, 0.0),
        ({"limit": "many", "min_confidence": None}, 10, 0.5),
    ],
)
def test_limits_are_kept(extra, limit, confidence):
    """1–100 facts, confidence 0–1; nonsense reads as the default."""
    options = read_options({"extra_config": extra})

    assert (options.limit, options.min_confidence) == (limit, confidence)


async def test_remember_says_what_became_of_the_fact():
    """Created, updated, or skipped where overwriting is off."""
    memory = FakeMemory()

    assert await remember(memory) == "Remembered: city = Bern (created)"
    assert await remember(memory, value="Basel") == "Remembered: city = Basel (updated)"
    skipped = await remember(memory, value="Chur", overwrite=False)
    assert skipped == "Remembered: city = Chur (skipped)"
    assert memory.facts["city"].value == "Basel"


async def test_the_kind_of_fact_is_the_callers_or_the_configured():
    """`world_knowledge` without either."""
    memory = FakeMemory()
    await remember(memory, key="a")
    await remember(memory, key="b", fact_type="correction")
    (tool,) = memory_write_tools(
        node(), {"extra_config": {"fact_type": "relationship"}}, services(), memory=memory
    )
    await tool.run({"key": "c", "value": "x", "fact_type": ""}, tool_context())

    kinds = [memory.facts[key].fact_type for key in "abc"]
    assert kinds == ["world_knowledge", "correction", "relationship"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"key": " "}, "Error: key is required"),
        ({"value": ""}, "Error: value is required"),
        ({"fact_type": "rumour"}, "Error: unknown fact_type 'rumour'"),
        ({"key": "k" * 256}, "Error: key must be at most 255 characters"),
        ({"value": "v" * 65_537}, "Error: value must be at most 65536 bytes"),
    ],
)
async def test_remember_refuses_what_is_no_fact(arguments, told):
    """Nothing is stored."""
    memory = FakeMemory()

    with pytest.raises(ToolError) as caught:
        await remember(memory, **arguments)

    assert caught.value.told == told
    assert memory.facts == {}


async def test_a_memory_out_of_reach_is_told():
    """Reading and writing word it themselves."""
    memory = FakeMemory()
    memory.broken = MemoryFailed("Storage is not available.")

    with pytest.raises(ToolError) as reading:
        await recall(memory)
    with pytest.raises(ToolError) as writing:
        await remember(memory)

    assert reading.value.told == "Error reading memory: Storage is not available."
    assert writing.value.told == "Error writing memory: Storage is not available."

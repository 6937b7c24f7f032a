"""categorizer: what it asks, how it reads the answer, where it routes."""

import pytest

from pipelit.llm.types import ProviderError
from pipelit.nodes.base import NodeError
from pipelit.nodes.categorizer import CategorizerParts, categorizer_component, find_category
from pipelit.nodes.memory import Fact
from pipelit.nodes.parsing import OutputParsing
from pipelit.nodes.worker import WorkerPool
from tests.nodes.agents import Port, Script, message, says
from tests.nodes.calls import node
from tests.nodes.model_nodes import FakeMemory, model_call, model_parts

CATEGORIES = [{"name": "billing", "description": "Money"}, {"name": "technical"}]


async def categorize(script, call, memory=None):
    async with WorkerPool() as pool:
        parts = CategorizerParts(
            models=model_parts(script),
            parsing=OutputParsing(pool),
            memory=memory or FakeMemory(),
        )
        return await categorizer_component(parts)(call)


@pytest.mark.parametrize(
    ("raw", "parsed", "category"),
    [
        ('{"category":"technical"}', None, "technical"),
        ('Sure: {"category": "technical"} bye', None, "technical"),
        ('{"category": "x"} {"category": "billing"}', None, "billing"),
        ("It is a BILLING matter", None, "billing"),
        ("technical-deep", None, "technical-deep"),
        ("whatever", "billing", "billing"),
        ("whatever", {"category": "billing"}, "billing"),
        ('{"category":"technical"}', {"category": "x"}, "technical"),
        ("whatever", ["billing"], None),
        ("I do not know", None, None),
        ("", None, None),
        ('{"category": 5}', None, None),
    ],
)
def test_the_first_reading_that_names_a_category_wins(raw, parsed, category):
    """Parser, JSON, pattern, mention; the longest name of those mentioned."""
    names = ["billing", "technical", "technical-deep"]

    assert find_category(raw, names, parsed=parsed) == category


async def test_the_answer_is_port_and_route():
    """One call; the system prompt holds the own prompt and the categories, the user the text."""
    script = Script(says('{"category":"technical"}'))
    port = Port()
    call = model_call(
        message("user", "I can't log in"),
        port=port,
        categories=CATEGORIES,
        system_prompt="Be quick.",
    )

    outcome = await categorize(script, call)

    assert outcome.ports == {"category": "technical", "raw": '{"category":"technical"}'}
    assert outcome.route == "technical"
    assert outcome.messages == ()
    assert outcome.report.warnings == ()
    assert outcome.report.usage.llm_calls == 1
    assert outcome.report.usage.total_tokens == 15
    assert outcome.report.model == "gpt-4o"
    assert outcome.report.input == {"system_prompt": "Be quick.", "text": "I can't log in"}
    (system, user) = script.texts()
    assert system[1].startswith("Be quick.\n\n")
    assert "- billing: Money\n- technical: " in system[1]
    assert '{"category": "<name>"}' in system[1]
    assert user == ("user", "I can't log in")
    assert port.deltas == []


@pytest.mark.parametrize(
    ("said", "extra", "question", "logged"),
    [
        ((message("user", "a"), message("assistant", "b")), {}, "b", {"text": "a"}),
        ((message("user", "a"),), {"input_template": "T"}, "T", {"input_template": "T"}),
        ((message("user", ""),), {}, "(no message)", {}),
    ],
)
async def test_the_question_is_the_last_message_or_the_template(said, extra, question, logged):
    """Whoever said it last; nothing said is said so. The log shows what the user said."""
    script = Script(says("billing"))

    outcome = await categorize(script, model_call(*said, categories=CATEGORIES, **extra))

    assert script.texts()[-1] == ("user", question)
    assert outcome.report.input == logged


@pytest.mark.parametrize(
    ("extra", "category"),
    [
        ({"categories": CATEGORIES}, "billing"),
        ({"categories": CATEGORIES, "fallback_category": "other"}, "other"),
        ({"categories": []}, "unknown"),
        ({"categories": [{"description": "nameless"}, "text"]}, "unknown"),
        ({}, "unknown"),
    ],
)
async def test_an_answer_without_a_category_falls_back_with_a_warning(extra, category):
    """The configured fallback, else the first category, else `unknown`."""
    outcome = await categorize(Script(says("dunno")), model_call(**extra))

    assert (outcome.ports["category"], outcome.route) == (category, category)
    assert [w["code"] for w in outcome.report.warnings] == ["category_fallback"]


async def test_an_attached_parser_reads_the_answer_first():
    """Its result may be the name itself; a pattern that fails warns and the answer is read."""
    good = await categorize(
        Script(says('```\n{"category": "technical"}\n```')),
        model_call(categories=CATEGORIES, parser={"parser_type": "json"}),
    )
    bad = await categorize(
        Script(says("billing")),
        model_call(categories=CATEGORIES, parser={"parser_type": "regex", "pattern": "["}),
    )

    assert good.route == "technical"
    assert bad.route == "billing"
    assert [w["code"] for w in bad.report.warnings] == ["parser_bad_pattern"]


async def test_a_memory_adds_what_is_known_to_the_prompt():
    """Facts found by the user's text, as many as the memory node allows."""
    memory = FakeMemory(
        Fact(key="vip", value="hi there"),
        Fact(key="second", value="hi again"),
        Fact(key="other", value="x"),
    )
    script = Script(says("billing"))
    tools = [(node("memory_read"), {"extra_config": {"limit": 1}})]

    await categorize(script, model_call(categories=CATEGORIES, tools=tools), memory)

    assert script.texts()[0][1].endswith("\n\nKnown facts:\n- vip: hi there")


async def test_without_a_model_it_is_a_config_error():
    """The node names what is missing."""
    with pytest.raises(NodeError) as caught:
        await categorize(Script(), model_call(model=False, categories=CATEGORIES))

    assert str(caught.value) == "Node 'me' has no connected ai_model node via edge_label='llm'."
    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)


async def test_a_failed_call_fails_the_node_and_is_counted():
    """The provider's error goes through; the report noted last knows of the call."""
    port = Port()
    script = Script(ProviderError("slow down", code="RateLimitError", retryable=True))

    with pytest.raises(ProviderError):
        await categorize(script, model_call(port=port, categories=CATEGORIES))

    assert port.reports[-1].usage.llm_calls == 1
    assert [w["code"] for w in port.reports[-1].warnings] == ["usage_missing"]

"""extractor: what it asks, how it repairs, what it refuses."""

import pytest

from pipelit.nodes.base import NodeError
from pipelit.nodes.extractor import ExtractorParts, extractor_component
from pipelit.nodes.parsing import OutputParsing
from pipelit.nodes.worker import WorkerPool
from tests.nodes.agents import Script, message, says
from tests.nodes.model_nodes import model_call, model_parts

SCHEMA = {"name": "string", "phone": "string | null"}


async def extract(script, call):
    async with WorkerPool() as pool:
        parts = ExtractorParts(models=model_parts(script), parsing=OutputParsing(pool))
        return await extractor_component(parts)(call)


async def test_the_answer_becomes_an_object_of_the_schema():
    """One call; missing fields are null; the answer is kept as `raw`."""
    script = Script(says('{"name":"Ann","age":3}'))
    call = model_call(
        message("user", "I'm Ann"), extraction_schema=SCHEMA, system_prompt="Be exact."
    )

    outcome = await extract(script, call)

    assert outcome.ports == {
        "extracted": {"name": "Ann", "phone": None},
        "raw": '{"name":"Ann","age":3}',
    }
    assert outcome.route is None
    assert outcome.report.usage.llm_calls == 1
    (system, user) = script.texts()
    assert system[1].startswith("Be exact.\n\n")
    assert '"phone": "string | null"' in system[1]
    assert user == ("user", "I'm Ann")


@pytest.mark.parametrize(
    ("parser", "answer", "extracted"),
    [
        (None, '```json\n{"name": "Ann"}\n```', {"name": "Ann"}),
        ({"parser_type": "json"}, '{"name": "Ann"}', {"name": "Ann"}),
        ({"parser_type": "json", "schema": {"n": "integer"}}, '{"n": "7"}', {"n": 7}),
        ({"parser_type": "list", "schema": {"n": "integer"}}, "- a\n- b", {"items": ["a", "b"]}),
        ({"parser_type": "regex", "pattern": r"\d+"}, "1 and 22", {"items": ["1", "22"]}),
        ({"parser_type": "regex", "pattern": r"(\w)(\d)"}, "a1", {"items": [["a", "1"]]}),
        ({"parser_type": "list"}, "", {"items": []}),
    ],
)
async def test_the_attached_parser_reads_the_answer(parser, answer, extracted):
    """Its schema counts; what gives a list gives it as `items`."""
    outcome = await extract(Script(says(answer)), model_call(parser=parser))

    assert outcome.ports["extracted"] == extracted


async def test_a_parser_may_read_another_node():
    """`source_node` names it; its primary value is parsed instead of the answer."""
    parser = {"parser_type": "json", "source_node": "read"}
    call = model_call(parser=parser, outputs={"read": {"output": {"a": 1}}})

    outcome = await extract(Script(says("ignored")), call)

    assert outcome.ports == {"extracted": {"a": 1}, "raw": "ignored"}


@pytest.mark.parametrize("first", ["no json", "[1]", "{broken"])
async def test_an_answer_that_is_no_object_is_asked_for_once_more(first):
    """The repair call quotes the answer and what is wrong with it; both calls are counted."""
    script = Script(says(first), says('{"name": "Ann"}'))

    outcome = await extract(script, model_call(extraction_schema=SCHEMA))

    assert outcome.ports["extracted"] == {"name": "Ann", "phone": None}
    assert outcome.ports["raw"] == '{"name": "Ann"}'
    assert outcome.report.usage.llm_calls == 2
    assert [role for role, _ in script.texts()] == ["system", "user", "assistant", "user"]
    assert script.texts()[2] == ("assistant", first)
    assert script.texts()[3][1].startswith("Your answer could not be used: ")


async def test_two_useless_answers_fail_the_node():
    """The error has its own code, is not retried, and says what was used."""
    with pytest.raises(NodeError) as caught:
        await extract(Script(says("no"), says("again no")), model_call(extraction_schema=SCHEMA))

    assert str(caught.value) == "Extractor could not parse a JSON object from the model response"
    assert (caught.value.code, caught.value.retryable) == ("ExtractionError", False)
    assert caught.value.report.usage.llm_calls == 2


async def test_misfits_are_null_with_a_warning():
    """The warning is in the report."""
    answer = says('{"name": ["Ann"]}')

    outcome = await extract(Script(answer), model_call(extraction_schema=SCHEMA))

    assert outcome.ports["extracted"] == {"name": None, "phone": None}
    assert [w["code"] for w in outcome.report.warnings] == ["extraction_mismatch"]


async def test_without_a_model_it_is_a_config_error():
    """The node names what is missing."""
    with pytest.raises(NodeError, match="no connected ai_model") as caught:
        await extract(Script(), model_call(model=False, extraction_schema=SCHEMA))

    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)

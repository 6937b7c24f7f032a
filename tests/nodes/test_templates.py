"""Resolving a node's config: which strings, with what left when they fail."""

import pytest
import trio

from pipelit.engine.definition import NodeDef
from pipelit.engine.expressions import ExpressionFailed
from pipelit.nodes.base import NodeError
from pipelit.nodes.templates import Templates
from pipelit.nodes.worker import WorkerPool

CONTEXT = {"trigger": {"text": "hi"}, "n": 2, "o": {"k": [1]}}


@pytest.fixture
async def templates():
    async with WorkerPool(size=1) as pool:
        yield Templates(pool)


def node(component_type="agent", system_prompt="", **extra):
    config = {"system_prompt": system_prompt, "extra_config": extra, "model_name": "{{ n }}"}
    return NodeDef(id=1, node_id="x", component_type=component_type, config=config)


async def test_prompt_and_every_nested_string_are_resolved(templates):
    """Objects, lists and nested lists are walked; model parameters and numbers are not touched."""
    subject = node(
        system_prompt="Say {{ trigger.text }}",
        input_template="In: {{ n }}",
        headers={"X": "{{ n }}", "n": 1},
        deep=[["{{ trigger.text }}", None], {"a": ["{{ o }}"]}],
    )

    resolved = await templates.resolve(subject, CONTEXT)

    assert resolved.warnings == ()
    assert resolved.config == {
        "system_prompt": "Say hi",
        "model_name": "{{ n }}",
        "extra_config": {
            "input_template": "In: 2",
            "headers": {"X": "2", "n": 1},
            "deep": [["hi", None], {"a": ['{"k": [1]}']}],
        },
    }


async def test_a_failed_expression_leaves_the_whole_string_and_a_warning(templates):
    """There is no partial substitution; each field is named as the contract names it."""
    subject = node(
        system_prompt="{{ trigger.text }} {{ x }}",
        input_template="{{ y }}",
        rules=[{"value": "{{ z" + "z" * 300 + " }}"}],
    )

    resolved = await templates.resolve(subject, CONTEXT)

    assert resolved.config["system_prompt"] == "{{ trigger.text }} {{ x }}"
    assert resolved.warnings[0] == {
        "code": "expression_unresolved",
        "field": "system_prompt",
        "message": "'x' is undefined",
        "template": "{{ trigger.text }} {{ x }}",
    }
    assert [warning["field"] for warning in resolved.warnings] == [
        "system_prompt",
        "input_template",
        "extra_config.rules.0.value",
    ]
    assert len(resolved.warnings[2]["template"]) == 200


async def test_strict_nodes_fail_instead(templates):
    """With `strict_expressions` the first failure ends the node, without retry."""
    subject = node(strict_expressions=True, url="{{ x }}")

    with pytest.raises(NodeError) as caught:
        await templates.resolve(subject, CONTEXT)

    assert str(caught.value) == "Expression in 'extra_config.url' failed: 'x' is undefined"
    assert (caught.value.code, caught.value.retryable) == ("ExpressionError", False)


async def test_code_gets_python_literals_and_may_switch_resolution_off(templates):
    """Only the `code` field of a code node has literals; `template: false` leaves all as is."""
    on = node("code", code="x = {{ o }}", other="{{ o }}")
    off = node("code", system_prompt="{{ n }}", code="x = {{ o }}", template=False)

    resolved = await templates.resolve(on, {"o": {"k": None}})
    untouched = await templates.resolve(off, CONTEXT)

    assert resolved.config["extra_config"]["code"] == "x = {'k': None}"
    assert resolved.config["extra_config"]["other"] == '{"k": null}'
    assert untouched.config == off.config


async def test_braces_around_a_rules_field_are_a_path_not_a_template(templates):
    """A rule reads the value at `{{ path }}`; a template inside a longer path is resolved."""
    subject = node("switch", rules=[{"field": "{{ o.k }}"}, {"field": "o.{{ n }}"}])

    resolved = await templates.resolve(subject, CONTEXT)

    fields = [rule["field"] for rule in resolved.config["extra_config"]["rules"]]
    assert fields == ["{{ o.k }}", "o.2"]


async def test_the_config_of_the_workflow_is_never_changed(templates):
    """Resolving makes a copy."""
    subject = node(system_prompt="{{ n }}", a={"b": "{{ n }}"})

    await templates.resolve(subject, CONTEXT)

    assert subject.config["system_prompt"] == "{{ n }}"
    assert subject.extra == {"a": {"b": "{{ n }}"}}


@pytest.mark.slow
async def test_statements_render_outside_with_only_the_names_they_need(templates):
    """Loops and arithmetic give the same result from the worker; failures are alike."""
    loop = await templates.render("{% for x in o.k %}{{ x + n }}{% endfor %}", CONTEXT)
    long = await templates.render("{{ n }}" + "y" * 5000, CONTEXT)

    assert (loop, long) == ("3", "2" + "y" * 5000)
    with pytest.raises(ExpressionFailed, match="'x' is undefined"):
        await templates.render("{{ x + 1 }}", CONTEXT)
    with pytest.raises(ExpressionFailed, match="longer than"):
        await templates.render("{{ n }}" + "y" * 100_000, CONTEXT)


@pytest.mark.parametrize("text", ["{{ big }}", "{{ big | tojson }}", "{{ big | string }}"])
async def test_large_values_are_rendered_outside(templates, monkeypatch, text):
    """Nothing could stop it here, and everybody would wait."""
    asked = []
    render = WorkerPool.render

    async def watched(self, text, context, **more):
        asked.append(text)
        return await render(self, text, context, **more)

    monkeypatch.setattr(WorkerPool, "render", watched)
    context = {"big": ["x" * 10] * 7000, "small": [1]}

    assert len(await templates.render(text, context)) == 7000 * 14
    assert await templates.render("{{ small }} {{ big | length }}", context) == "[1] 7000"
    assert asked == [text]


async def test_others_run_between_the_strings_of_a_config(templates):
    """However many there are."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await templates.resolve(node(many=["{{ n }}"] * 100), CONTEXT)
        nursery.cancel_scope.cancel()

    assert turns >= 50


async def test_only_a_thousand_strings_of_a_config_are_rendered(templates):
    """The rest stays as it is, with one warning."""
    resolved = await templates.resolve(node(many=["{{ n }}"] * 1010), CONTEXT)

    assert resolved.config["extra_config"]["many"] == ["2"] * 1000 + ["{{ n }}"] * 10
    (warning,) = resolved.warnings
    assert warning["field"] == "extra_config.many.1000"
    assert warning["message"] == "more than 1000 templates in one config"

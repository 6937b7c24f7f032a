"""Attacks through `{{ … }}`. Contract: engine.md §20."""

import pytest

from tests.kit.api import Api
from tests.kit.site import People
from tests.security.bystander import undisturbed
from tests.security.lab import attack, build, log_of, output_of

pytestmark = pytest.mark.slow

ESCAPES = {
    "the_classes_of_python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "the_attr_filter": "{{ '' | attr('__class__') }}",
    "attributes_by_index": "{{ ''['__class__']['__base__'] }}",
    "sort_by_an_attribute": "{{ ['', ''] | sort(attribute='__class__.__name__') | list }}",
    "the_code_of_a_function": "{{ ''.upper.__func__ }}",
    "the_globals_of_range": "{{ range.__globals__ }}",
    "the_globals_of_cycler": "{{ cycler.__init__.__globals__ }}",
    "the_globals_of_lipsum": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "the_namespace_class": "{{ namespace.__init__.__globals__ }}",
    "the_template_itself": "{{ self._TemplateReference__context }}",
    "the_configuration": "{{ config.items() }}",
    "import_of_a_file": "{% import '/etc/passwd' as x %}{{ x }}",
    "include_of_a_file": "{% include '/etc/passwd' %}",
    "extends_of_a_file": "{% extends '/etc/passwd' %}",
    "a_format_string": "{{ '{0.__class__.__init__.__globals__}'.format(trigger) }}",
    "format_map": "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "a_generator_frame": "{{ (x for x in ()).gi_frame }}",
    "a_macro_s_function": "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "a_caller": "{% call(x) trigger() %}{% endcall %}",
    "the_debug_tag": "{% debug %}",
    "what_changes_the_context": "{% do trigger.update({'text': 'x'}) %}",
}

BOMBS = {
    "a_loop_without_end": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "nested_loops_that_write": "{% for a in range(99999) %}{% for b in range(99999) %}x"
    "{% endfor %}{% endfor %}",
    "a_huge_range": "{{ range(10**12) | list }}",
    "a_huge_power": "{{ 9**(9**9) }}",
    "a_huge_text": "{{ 'x' * 10**10 }}",
    "a_huge_list": "{{ [0] * 10**10 }}",
    "texts_that_double": "{% set x = namespace(t='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set x.t = x.t ~ x.t %}{% endfor %}",
    "a_huge_width": "{{ '%999999999d' % 1 }}",
    "a_wide_center": "{{ 'x' | center(10**10) }}",
    "a_wide_format": "{{ '%0*d' | format(10**9, 1) }}",
    "a_wide_indent": "{{ 'a\\nb' | indent(10**10) }}",
    "a_long_replacement": "{{ ('x' * 99999) | replace('x', 'y' * 99999) }}",
    "a_long_join": "{{ range(99999) | join('x' * 99999) }}",
    "a_padded_batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "many_slices": "{{ [1] | slice(10**10) | list }}",
    "recursion_of_a_macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "deep_brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep_filters": "{{ 1" + " | abs" * 15000 + " }}",
    "a_big_integer_text": "{{ (10**9999) ** 99 }}",
}


async def expect_untouched(api: Api, slug: str, template: str) -> None:
    """Have a template rendered: it must stay as it is, with a warning."""
    await build(api, slug, "code", code=template, language="template")
    detail = await attack(api, slug)
    assert output_of(detail)["output"] == template
    warnings = log_of(detail)["metadata"]["warnings"]
    assert [warning["code"] for warning in warnings] == ["expression_unresolved"]


@pytest.mark.parametrize("template", ESCAPES.values(), ids=list(ESCAPES))
async def test_the_sandbox_is_not_left_through(people: People, slug: str, template: str) -> None:
    """No way to what is not plain JSON: the text stays as it is, and the log says so."""
    await expect_untouched(people.olga, slug, template)


@pytest.mark.parametrize("template", BOMBS.values(), ids=list(BOMBS))
async def test_no_bomb_goes_off(people: People, bystander: Api, slug: str, template: str) -> None:
    """Neither time nor memory nor output without end; nobody else notices."""
    async with undisturbed(bystander):
        await expect_untouched(people.olga, slug, template)


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{ [''] | map(attribute='__class__') | list }}", "[Undefined]"),
        ("{{ [''] | groupby('__class__') }}", "[(Undefined, [''])]"),
    ],
    ids=["map", "groupby"],
)
async def test_an_attribute_asked_for_by_a_filter_is_undefined(
    people: People, slug: str, template: str, shown: str
) -> None:
    """Filters look up as expressions do: what is there beside the JSON is not."""
    await build(people.olga, slug, "code", code=template, language="template")

    assert output_of(await attack(people.olga, slug))["output"] == shown


@pytest.mark.parametrize("name", ["urlize", "striptags", "wordwrap(1) | wordwrap(2)", "title"])
async def test_slow_filters_on_long_texts_stall_nobody(
    people: People, bystander: Api, slug: str, name: str
) -> None:
    """What takes time in proportion to a stranger's text is done beside the loop."""
    template = f"{{{{ trigger.text | {name} | length }}}}"
    await build(people.olga, slug, "code", code=template, language="template")

    async with undisturbed(bystander):
        detail = await attack(people.olga, slug, "www.<!-- " * 11_000)

    assert detail["status"] == "completed"


async def test_text_from_strangers_is_not_evaluated(people: People, slug: str) -> None:
    """One pass: what a template inserts is text, whatever it looks like."""
    await build(people.olga, slug, "code", code="{{ trigger.text }}", language="template")

    detail = await attack(people.olga, slug, "{{ trigger }}{% raw %}{{ 7 * 7 }}")

    assert output_of(detail)["output"] == "{{ trigger }}{% raw %}{{ 7 * 7 }}"


async def test_a_payload_that_looks_like_an_object_of_python_is_none(
    people: People, slug: str
) -> None:
    """Keys called like methods and special attributes are keys."""
    template = "{{ trigger.payload.__class__ }} {{ trigger.payload.items }}"
    await build(people.olga, slug, "code", code=template, language="template")

    run = await people.olga.run(slug, __class__="mine", items="mine too")

    assert output_of(await people.olga.wait_end(run))["output"] == "mine mine too"


async def test_many_expensive_templates_at_once_delay_only_themselves(
    people: People, bystander: Api, slug: str
) -> None:
    """Runs that render without end are ended, each by itself."""
    bomb = BOMBS["a_loop_without_end"]
    await build(people.olga, slug, "code", code=bomb, language="template")

    async with undisturbed(bystander) as rounds:
        runs = [await people.olga.run(slug) for _ in range(2)]
        await rounds.more()
        for run in runs:
            assert output_of(await people.olga.wait_end(run))["output"] == bomb

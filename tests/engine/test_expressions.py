"""The expression language: what it sees, how it renders, and what it can never reach."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.expressions import (
    MAX_OUTPUT_BYTES,
    MAX_TEMPLATE_CHARS,
    ExpressionFailed,
    Renderer,
    has_expression,
)

CONTEXT = {
    "a": {"items": [1, "é", True, None], "s": "x"},
    "n": 5,
    "xs": [1, 2],
    "text": "Hello",
    "my-node": {"output": "o"},
    "nodes": {"my-node": {"output": "o"}},
}


def render(text, context=None, **options):
    renderer = Renderer(**options)
    return renderer.render(renderer.parse(text), CONTEXT if context is None else context)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ text }}, {{ n }}", "Hello, 5"),
        ("{{ a.items }}", '[1, "é", true, null]'),
        ("{{ a['s'] }}{{ xs.0 }}{{ xs[1] }}", "x12"),
        ("{{ nodes['my-node'].output }}", "o"),
        ("{{ true }} {{ none }} {{ 1.50 }}", "True None 1.5"),
        ("{{ a.missing | default('N/A') }}", "N/A"),
        ("{{ text | upper }}{{ text | length }}", "HELLO5"),
        ("{{ 'yes' if n > 3 else 'no' }}", "yes"),
        ("{{ n in [5, 6] }}", "True"),
        ("{{ '{\"k\": [1]}' | fromjson }}", '{"k": [1]}'),
        ('{{ "it\'s" | shquote }}', "'it'\"'\"'s'"),
        ("{{ a | tojson }}", '{"items": [1, "\\u00e9", true, null], "s": "x"}'),
        ("{% for x in xs %}{{ loop.index }}:{{ x }} {% endfor %}", "1:1 2:2 "),
        ("{{ range(3) | list }}", "[0, 1, 2]"),
        ("{{ n * 2 + 1 }}", "11"),
        ("{{ text.lower() }}", "hello"),
        ("line\n", "line\n"),
    ],
)
def test_templates_render_as_the_contract_says(template, expected):
    """Containers are JSON, scalars are Jinja's, mappings have keys only."""
    assert expected == render(template)


def test_code_sees_python_literals():
    """In a code node's code, objects and lists are Python literals."""
    assert render("x = {{ a }}", python_literals=True) == (
        "x = {'items': [1, 'é', True, None], 's': 'x'}"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ x }}", "'x' is undefined"),
        ("{{ x.y }}", "'x' is undefined"),
        ("{{ a.port }}", "'dict object' has no attribute 'port'"),
        ("{{ a.keys() }}", "'dict object' has no attribute 'keys'"),
        ("{{", "unexpected 'end of template'"),
        ("{{ xs | attr('append') }}", "No filter named 'attr'."),
        ("{{ xs.append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
        ("{{ range(100001) | length }}", "Range too big"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
        ("{{ range }}", "a function is not JSON data"),
        ("{{ 'x' * 2000000 }}", "operand of '*' too large"),
        ("{{ xs * 2000000 }}", "operand of '*' too large"),
        ("{{ 10 ** 20000 }}", "operand of '**' too large"),
        ("{{ (10 ** 9000) * (10 ** 9000) }}", "operand of '*' too large"),
        ("{{ ('x' * 1000000) + ('x' * 1000000) }}", "result of '+' too large"),
        ("{{ '%2000000s' % 1 }}", "result of '%' too large"),
        ("{{ text" + " | tojson" * 25 + " }}", "result of a filter too large"),
        ("{{ text | fromjson }}", "Expecting value"),
        ("{% import 'x' as y %}", "no loader"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "nested too deeply"),
        ("x" * (MAX_TEMPLATE_CHARS + 1), "template longer than"),
        ("{{ '0123456789' * 100000 }}" * 2, f"output larger than {MAX_OUTPUT_BYTES}"),
    ],
)
def test_every_error_is_one_failure_with_a_reason(template, message):
    """Undefined names, syntax, sandbox and limits all end in `ExpressionFailed`."""
    with pytest.raises(ExpressionFailed) as caught:
        render(template)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("template", "simple"),
    [
        ("{{ a.items.0 }}", True),
        ("{{ a.x | default(n) }}", True),
        ("{{ 'a' if n == 5 else 'b' }}", True),
        ("{{ n in [1, 2] }}", True),
        ("{{ a | tojson }}", True),
        ("{{ [a, a] }}", False),
        ("{{ text.upper() }}", False),
        ("{{ n + 1 }}", False),
        ("{{ text ~ text }}", False),
        ("{% if n %}{% endif %}", False),
        ("{{ text | center(1000000000) }}", False),
        ("{{ a | tojson(1000000000) }}", False),
        ("{{ text | trim(text) }}", False),
        ("{{ xs | join(text) }}", False),
        ("{{ n | round(99999999, 'ceil') }}", False),
        ("{{ a }}" * 250, False),
        ("{{ text }}" + "x" * 4000, False),
    ],
)
def test_only_templates_bounded_by_their_values_are_simple(template, simple):
    """Statements, calls, arithmetic and growing filters are never rendered in the server."""
    assert simple is Renderer().parse(template).is_simple


def test_values_are_never_evaluated_again():
    """A value that looks like a template is text."""
    assert render("{{ v }}", {"v": "{{ 7 * 7 }}"}) == "{{ 7 * 7 }}"


@given(st.text(max_size=50))
def test_only_braces_make_a_template(text):
    """The fast path is exactly: neither `{{` nor `{%`."""
    assert has_expression(text) is ("{{" in text or "{%" in text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
ATTRIBUTES = st.sampled_from(
    sorted(
        {name for kind in (dict, list, str, int, type, object) for name in dir(kind)}
        | {"gi_frame", "__globals__", "func_code", "mro", "items", "format"}
    )
)
ACCESS = st.sampled_from(["{{ v.%s }}", "{{ v['%s'] }}", "{{ [v] | map(attribute='%s') | list }}"])


@given(VALUES, ATTRIBUTES, ACCESS)
def test_no_attribute_of_python_renders(value, attribute, access):
    """Whatever a value is, naming one of its attributes gives a key, a number or a failure."""
    context = {"v": value}
    keyed = isinstance(value, dict) and attribute in value

    try:
        rendered = render(access % attribute, context)
    except ExpressionFailed:
        return
    assert keyed or rendered in ("", "[]") or json.loads(rendered.lower()) is not None


@given(st.text(alphabet="{}%|ab.()[]'\"0123456789 *+~_-", max_size=40), VALUES)
def test_any_text_renders_or_fails_within_bounds(text, value):
    """No template raises anything but `ExpressionFailed`, and its output is bounded."""
    try:
        rendered = render(text, {"a": value, "b": text})
    except ExpressionFailed:
        return
    assert len(rendered.encode("utf-8", "surrogatepass")) <= MAX_OUTPUT_BYTES

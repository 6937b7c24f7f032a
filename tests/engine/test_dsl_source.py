"""YAML is read safely, whatever it tries: engine.md §27.1."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.dsl import Catalogue, check_document
from pipelit.engine.dsl.errors import ParseError
from pipelit.engine.dsl.source import load_mapping

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
    for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: !!python/object/apply:os.system [ls]",
        "a: !!binary aGk=",
        "a: .nan",
        BOMB,
        "a: &a [*a]",
        "a: " + "[" * 5000 + "]" * 5000,
        "a: " + "[" * 150 + "]" * 150,
        "x" * 262_145,
        "a: 1\n---\nb: 2",
        "? [a]\n: b",
        "a: \x00",
    ],
    ids=lambda text: text[:24],
)
def test_what_is_no_plain_yaml_is_refused(text: str) -> None:
    """One line that says so, quickly."""
    with pytest.raises(ParseError, match=r"^Invalid YAML: ") as raised:
        load_mapping(text)

    assert "\n" not in str(raised.value)


def test_plain_values_become_json() -> None:
    """Dates stay text, keys become text, anchors are copies, JSON is YAML."""
    text = "{d: 2024-01-01, 2: two, true: yes, null: no, a: &a {b: 1}, c: *a, m: {<<: *a, e: 2}}"

    value = load_mapping(text)

    assert value == {
        "d": "2024-01-01",
        "2": "two",
        "true": True,
        "null": False,
        "a": {"b": 1},
        "c": {"b": 1},
        "m": {"b": 1, "e": 2},
    }
    assert value["a"] is not value["c"]
    assert load_mapping('{"name": "x"}') == {"name": "x"}


def test_a_hundred_expansions_are_allowed() -> None:
    """The hundred and first is not."""
    text = "a: &a 1\nb: [{}]"

    assert len(load_mapping(text.format(", ".join(["*a"] * 100)))["b"]) == 100
    with pytest.raises(ParseError, match="more than 100 alias expansions"):
        load_mapping(text.format(", ".join(["*a"] * 101)))


KEYS = [
    *("id", "type", "next", "rules", "route", "default", "over", "body", "tools", "model"),
    *("for", "config", "output_parser", "skills", "snippet"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=12,
)
STEP = st.fixed_dictionaries(
    {"type": st.sampled_from(["agent", "switch", "loop", "code", "filter", "error_handler"])},
    optional={
        **dict.fromkeys((key for key in KEYS if key not in ("id", "type")), JSON),
        "id": st.sampled_from(["a", "b", "c"]),
        "body": st.just([{"type": "wait"}]) | JSON,
    },
)


@given(st.fixed_dictionaries({"name": st.just("x"), "steps": st.lists(STEP, max_size=4) | JSON}))
def test_any_document_is_answered(document: dict[str, object]) -> None:
    """A broken document is a result, never a failure."""
    checked = check_document(json.dumps(document), Catalogue())

    assert checked.valid == (not checked.errors)

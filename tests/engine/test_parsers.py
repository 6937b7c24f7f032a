"""Parsers and extraction schemas: what a text becomes, and what a misfit becomes."""

import pytest

from pipelit.engine.extraction import fields_of, shape
from pipelit.engine.parsers import FindAll, parse


@pytest.mark.parametrize(
    ("config", "text", "result"),
    [
        ({}, ' {"a": 1} ', {"a": 1}),
        ({"parser_type": "json"}, "[1]", [1]),
        ({}, 'Here:\n```json\n{"a": 1}\n```\nDone', {"a": 1}),
        ({}, "```\n[1, 2]\n```", [1, 2]),
        ({}, '```python\n{"a": 1}\n```', '```python\n{"a": 1}\n```'),
        ({}, "no json", "no json"),
        ({}, "NaN", "NaN"),
        ({}, "", ""),
        ({"parser_type": "list"}, "1. A\n- B", ["A", "B"]),
        ({"parser_type": "list"}, "* a\n\n + b\n• c\n•d\n2) e", ["a", "b", "c", "d", "e"]),
        ({"parser_type": "list"}, "1.5 litres\n-5\n*bold*\n2024 was", None),
        ({"parser_type": "list"}, "-\n  \n", []),
        ({"parser_type": "list"}, "", []),
        ({"parser_type": "xml"}, "<a/>", "<a/>"),
        ({"parser_type": "regex", "pattern": r"\d"}, "1 2", FindAll(r"\d")),
    ],
)
def test_a_parser_gives_data_or_the_text_as_it_was(config, text, result):
    """Every type of parser; digits and signs that belong to the text of a list stay."""
    assert parse(config, text) == (text.splitlines() if result is None else result)


@pytest.mark.parametrize(
    ("schema", "given", "shaped"),
    [
        (
            {"name": "string", "phone": "string | null"},
            {"name": "Ann"},
            {"name": "Ann", "phone": None},
        ),
        ({"n": "integer"}, {"n": "12", "other": 1}, {"n": 12}),
        ({"n": "integer"}, {"n": 12.0}, {"n": 12}),
        ({"n": "number"}, {"n": "1.5"}, {"n": 1.5}),
        ({"b": "boolean"}, {"b": "True"}, {"b": True}),
        ({"s": "string"}, {"s": 12}, {"s": "12"}),
        ({"s": "string | number"}, {"s": 12}, {"s": 12}),
        ({"l": "array", "o": "object"}, {"l": "[1]", "o": '{"a": 1}'}, {"l": [1], "o": {"a": 1}}),
        ({"d": "date"}, {"d": "2026-01-02"}, {"d": "2026-01-02"}),
        ({"x": "colour"}, {"x": [1]}, {"x": [1]}),
        ({"x": ""}, {"x": [1]}, {"x": [1]}),
        (
            {"type": "object", "properties": {"n": {"type": ["integer", "null"]}, "x": {}}},
            {"n": "3", "x": True, "y": 1},
            {"n": 3, "x": True},
        ),
        ({"type": "object"}, {"a": 1}, {"a": 1}),
        (None, {"a": 1}, {"a": 1}),
    ],
)
def test_a_schema_gives_exactly_its_fields(schema, given, shaped):
    """Missing is null, unknown is dropped, what is unambiguous is converted."""
    assert shape(given, schema) == (shaped, ())


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("integer", "12.5"),
        ("integer", True),
        ("number", "many"),
        ("boolean", 1),
        ("string", ["a"]),
        ("array", "a, b"),
        ("object", "[1]"),
        ("date", "tomorrow"),
    ],
)
def test_a_misfit_is_null_with_a_warning(word, value):
    """The warning names the field and what was found."""
    shaped, (warning,) = shape({"x": value}, {"x": word})

    assert shaped == {"x": None}
    assert (warning["code"], warning["field"]) == ("extraction_mismatch", "x")
    assert word in warning["message"]


def test_dates_of_a_json_schema_are_told_by_their_format():
    """`format` wins over `type: string`."""
    schema = {"type": "object", "properties": {"d": {"type": "string", "format": "date"}}}

    assert fields_of(schema) == {"d": ("date", "null")}

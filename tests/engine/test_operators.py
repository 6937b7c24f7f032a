"""The contract's test vectors (operators.md §6), then properties of the 30 operators."""

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.operators import (
    OPERATORS,
    RegexTest,
    Rule,
    RuleError,
    evaluate,
    has_bad_length,
    is_equal,
    parse_rules,
)
from pipelit.engine.values import is_same_json, to_number, to_text

NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)

VECTORS = [
    ("equals", 42, "42", True),
    ("equals", True, "True", True),
    ("equals", 1.0, "1", True),
    ("equals", None, "", False),
    ("equals", "a", "A", False),
    ("not_equals", None, "x", True),
    ("contains", "hello world", "world", True),
    ("contains", [1, 2, 3], "2", True),
    ("contains", {"a": 1}, "a", True),
    ("contains", None, "", False),
    ("not_contains", [], "x", True),
    ("starts_with", "hello", "he", True),
    ("starts_with", None, "", False),
    ("ends_with", 105, "5", True),
    ("matches_regex", "order 77", r"\d+", True),
    ("not_matches_regex", None, "a", True),
    ("exists", 0, "", True),
    ("does_not_exist", None, "", True),
    ("is_empty", {}, "", True),
    ("is_empty", 0, "", False),
    ("is_not_empty", [0], "", True),
    ("gt", "10", "5", True),
    ("gt", 5, "abc", False),
    ("lt", None, 5, False),
    ("gte", 5, 5, True),
    ("lte", True, 5, False),
    ("gt", "1e3", 999, True),
    ("after", "2024-06-01", "2024-01-01", True),
    ("after", "2024-01-01T00:30:00+01:00", "2024-01-01", False),
    ("before", "not-a-date", "2024-01-01", False),
    ("before_or_equal", "2024-06-01Z", "2024-06-01", False),
    ("after_or_equal", 1704067200, "2024-01-01T00:00:00Z", True),
    ("is_true", "YES", "", True),
    ("is_true", 0, "", False),
    ("is_false", "false", "", True),
    ("is_false", None, "", True),
    ("length_eq", "abc", "3", True),
    ("length_eq", [1, 2], 2, True),
    ("length_neq", 42, 2, True),
    ("length_gt", {"a": 1, "b": 2}, 1, True),
    ("length_lt", None, 5, False),
    ("length_gte", "abc", "x", False),
    ("length_lte", "abc", 3, True),
]

MORE = [
    ("equals", None, None, True),
    ("equals", "", None, True),
    ("equals", False, "no", False),
    ("equals", True, 1, False),
    ("equals", "42.0", 42, True),
    ("equals", "x", 42, False),
    ("equals", 9007199254740993, "9007199254740992", False),
    ("equals", {"a": [1, True]}, {"a": [1.0, True]}, True),
    ("equals", [1], [True], False),
    ("equals", {"b": 1, "a": 2}, '{"a":2,"b":1}', True),
    ("not_starts_with", None, "", True),
    ("not_ends_with", "ab", "b", False),
    ("not_contains", None, "", True),
    ("matches_regex", None, "", False),
    ("gt", 9007199254740993, 9007199254740992, True),
    ("lt", "nan", 5, False),
    ("lte", " 5 ", 5, True),
    ("gte", "inf", 5, False),
    ("after", "2025-01-15T12:00:01", "now", True),
    ("before", "2025-01-15T12:00:01", "now", False),
    ("before", "2024-06-01+01:00", "2030-01-01", False),
    ("before", True, "2030-01-01", False),
    ("before", 1e300, "2030-01-01", False),
    ("before_or_equal", "2024-06-01 00:00", "2024-06-01", True),
    ("is_true", " 1 ", "", True),
    ("is_true", [0], "", True),
    ("is_false", "banana", "", True),
    ("length_neq", "abc", 3, False),
    ("length_eq", "abc", 3.0, True),
    ("length_eq", "abc", 3.5, False),
    ("length_eq", "abc", True, False),
    ("is_empty", " ", "", False),
    ("is_empty", False, "", False),
]


def decide(operator, field, value):
    answer = evaluate(Rule(operator=operator, value=value), field, now=NOW)
    if isinstance(answer, RegexTest):
        return (re.search(answer.pattern, answer.subject) is not None) is not answer.negated
    return answer


@pytest.mark.parametrize(("operator", "field", "value", "expected"), VECTORS + MORE)
def test_each_vector_of_the_contract_holds(operator, field, value, expected):
    """Operator, field value and rule value give the contract's answer."""
    assert expected is decide(operator, field, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)

PAIRS = [
    ("exists", "does_not_exist"),
    ("is_empty", "is_not_empty"),
    ("equals", "not_equals"),
    ("contains", "not_contains"),
    ("starts_with", "not_starts_with"),
    ("ends_with", "not_ends_with"),
    ("is_true", "is_false"),
    ("length_eq", "length_neq"),
]


@given(st.sampled_from(PAIRS), JSON, JSON)
def test_an_operator_and_its_opposite_never_agree(pair, field, value):
    """`not_x` is the negation of `x` for every pair of JSON values."""
    positive, negative = pair

    assert decide(positive, field, value) is not decide(negative, field, value)


@given(st.sampled_from(sorted(OPERATORS)), JSON, JSON)
def test_no_pair_of_json_values_breaks_an_operator(operator, field, value):
    """Every operator answers true, false or a regex question, and never raises."""
    answer = evaluate(Rule(operator=operator, value=value), field, now=NOW)

    assert isinstance(answer, bool | RegexTest)


@given(JSON)
def test_a_value_equals_itself_and_its_text(value):
    """Equality is reflexive, and scalars equal their text form."""
    assert is_equal(value, value)
    assert is_same_json(value, json.loads(json.dumps(value)))
    if not isinstance(value, list | dict) and value is not None:
        assert is_equal(value, to_text(value))


@given(st.integers(), st.integers())
def test_integers_compare_exactly_as_numbers_and_as_text(left, right):
    """No size of integer is rounded through a float."""
    assert decide("lt", left, right) is (left < right)
    assert decide("gte", str(left), right) is (left >= right)


@given(st.text())
def test_only_decimal_numbers_are_numbers(text):
    """A text is a number only if it is finite decimal notation, white space around it apart."""
    number = to_number(text)

    if number is not None:
        assert float(text.strip()) == pytest.approx(float(number))


def test_a_regex_is_asked_not_run():
    """The pattern goes out as a question with the subject cut to its limit."""
    answer = evaluate(Rule(operator="not_matches_regex", value="a+"), "b" * 200_000, now=NOW)

    assert answer == RegexTest("a+", "b" * 100_000, True)


def test_rules_are_read_with_defaults_and_the_route_alias():
    """Missing keys have the contract's defaults; `route` stands for `id`."""
    first, second = parse_rules([{"route": "r", "field": "a"}, {"id": "x", "operator": ""}])

    assert first == Rule(id="r", field="a", operator="equals", value="")
    assert second == Rule(id="x", operator="equals")
    assert parse_rules(None) == ()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([{"operator": "like"}], "Unknown operator 'like'"),
        ([{}, "text"], "Rule 2 must be an object"),
        ("text", "'rules' must be a list"),
    ],
)
def test_rules_that_cannot_be_evaluated_are_refused(raw, message):
    """Unknown operators and non-objects are refused with the contract's text."""
    with pytest.raises(RuleError) as caught:
        parse_rules(raw)

    assert message == str(caught.value)


def test_a_length_compared_with_no_integer_is_noticed():
    """Only length operators with a value that is no integer count as bad."""
    assert has_bad_length(Rule(operator="length_gte", value="x"))
    assert not has_bad_length(Rule(operator="length_gte", value=" 3 "))
    assert not has_bad_length(Rule(operator="gte", value="x"))


def test_an_operator_that_is_no_text_is_unknown() -> None:
    """A config may hold anything where an operator belongs."""
    with pytest.raises(RuleError, match="Unknown operator"):
        parse_rules([{"operator": ["equals"]}])


def test_there_are_exactly_thirty_operators() -> None:
    """The contract names thirty (operators.md)."""
    assert len(OPERATORS) == 30

"""The rules of `switch` and `filter`: 30 operators over a field value and a rule value.

Pure. Regular expressions are not run here, because a bad one never ends: `evaluate` returns the
question, and who asks it bounds the time. Contract: operators.md §1, §4.
"""

import operator as py
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec

from pipelit.engine.values import (
    is_same_json,
    to_instant,
    to_integer,
    to_length,
    to_number,
    to_text,
    to_truth,
)
from pipelit.errors import PipelitError

MAX_PATTERN_CHARS = 1000
MAX_SUBJECT_CHARS = 100_000


class RuleError(PipelitError):
    """A rule can never be evaluated; the text is the contract's."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. `id` is the route a switch emits; a filter has none."""

    id: str = ""
    field: str = ""
    operator: str = "equals"
    value: Any = ""


class RegexTest(msgspec.Struct, frozen=True):
    """Whether *pattern* is found in *subject*; the answer is turned round if *negated*."""

    pattern: str
    subject: str
    negated: bool


def parse_rules(raw: Any) -> tuple[Rule, ...]:
    """Read the `rules` of a config.

    Raises:
        RuleError: a rule is no object, or its operator is unknown.
    """
    if not isinstance(raw or [], list):
        raise RuleError("'rules' must be a list")
    return tuple(_parse_rule(index, rule) for index, rule in enumerate(raw or (), start=1))


def _parse_rule(index: int, raw: Any) -> Rule:
    if not isinstance(raw, dict):
        raise RuleError(f"Rule {index} must be an object")
    operator = raw.get("operator") or "equals"
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise RuleError(f"Unknown operator '{operator}'")
    return Rule(
        id=to_text(raw.get("id") or raw.get("route")),
        field=to_text(raw.get("field")),
        operator=operator,
        value=raw.get("value", ""),
    )


def evaluate(rule: Rule, field: Any, *, now: datetime) -> bool | RegexTest:
    """Decide whether *rule* holds for the value of its field.

    Args:
        field: a JSON value; None when missing.
        now: aware; what `now` as a rule value stands for.
    """
    return OPERATORS[rule.operator](field, rule.value, now)


def has_bad_length(rule: Rule) -> bool:
    """Tell whether a length is compared with something that is no integer."""
    return rule.operator.startswith("length_") and to_integer(rule.value) is None


def is_equal(field: Any, value: Any) -> bool:
    """Compare leniently: `42` is `"42"`, `true` is `"True"`. Contract: operators.md §4.2, E."""
    if field is None:
        return value is None
    if isinstance(field, bool) and isinstance(value, bool | str):
        wanted = to_text(value).lower()
        return wanted in ("true", "false") and (wanted == "true") is field
    if _is_number(field) and (_is_number(value) or isinstance(value, str)):
        number = to_number(value)
        if number is not None:
            return bool(field == number)
    if isinstance(field, str) and _is_number(value):
        return bool(to_number(field) == value)
    if isinstance(field, list | dict) and isinstance(value, list | dict):
        return is_same_json(field, value)
    return to_text(field) == to_text(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_empty(field: Any) -> bool:
    return field is None or field in ("", [], {})


def _contains(field: Any, value: Any) -> bool:
    if field is None:
        return False
    if isinstance(field, list):
        return any(is_equal(element, value) for element in field)
    return to_text(value) in (field if isinstance(field, dict) else to_text(field))


def _starts_with(field: Any, value: Any) -> bool:
    return field is not None and to_text(field).startswith(to_text(value))


def _ends_with(field: Any, value: Any) -> bool:
    return field is not None and to_text(field).endswith(to_text(value))


_Operator: TypeAlias = Callable[[Any, Any, datetime], bool | RegexTest]
_Test: TypeAlias = Callable[[Any, Any], bool]


def _unary(test: Callable[[Any], bool]) -> _Operator:
    return lambda field, _value, _now: test(field)


def _binary(test: _Test) -> _Operator:
    return lambda field, value, _now: test(field, value)


def _negated(test: _Test) -> _Operator:
    return lambda field, value, _now: not test(field, value)


def _regex(*, negated: bool) -> _Operator:
    def ask(field: Any, value: Any, _now: datetime) -> bool | RegexTest:
        if field is None:
            return negated
        return RegexTest(to_text(value), to_text(field)[:MAX_SUBJECT_CHARS], negated)

    return ask


def _compared(convert: Callable[[Any], Any], test: _Test) -> _Operator:
    def compare(field: Any, value: Any, _now: datetime) -> bool:
        left, right = convert(field), convert(value)
        return left is not None and right is not None and test(left, right)

    return compare


def _compared_instants(test: _Test) -> _Operator:
    def compare(field: Any, value: Any, now: datetime) -> bool:
        left, right = to_instant(field), now if value == "now" else to_instant(value)
        return left is not None and right is not None and test(left, right)

    return compare


def _compared_length(test: _Test, *, otherwise: bool = False) -> _Operator:
    def compare(field: Any, value: Any, _now: datetime) -> bool:
        length, wanted = to_length(field), to_integer(value)
        return otherwise if length is None or wanted is None else test(length, wanted)

    return compare


OPERATORS: Mapping[str, _Operator] = MappingProxyType(
    {
        "exists": _unary(lambda field: field is not None),
        "does_not_exist": _unary(lambda field: field is None),
        "is_empty": _unary(_is_empty),
        "is_not_empty": _unary(lambda field: not _is_empty(field)),
        "equals": _binary(is_equal),
        "not_equals": _negated(is_equal),
        "contains": _binary(_contains),
        "not_contains": _negated(_contains),
        "starts_with": _binary(_starts_with),
        "not_starts_with": _negated(_starts_with),
        "ends_with": _binary(_ends_with),
        "not_ends_with": _negated(_ends_with),
        "matches_regex": _regex(negated=False),
        "not_matches_regex": _regex(negated=True),
        "gt": _compared(to_number, py.gt),
        "lt": _compared(to_number, py.lt),
        "gte": _compared(to_number, py.ge),
        "lte": _compared(to_number, py.le),
        "after": _compared_instants(py.gt),
        "before": _compared_instants(py.lt),
        "after_or_equal": _compared_instants(py.ge),
        "before_or_equal": _compared_instants(py.le),
        "is_true": _unary(to_truth),
        "is_false": _unary(lambda field: not to_truth(field)),
        "length_eq": _compared_length(py.eq),
        "length_neq": _compared_length(py.ne, otherwise=True),
        "length_gt": _compared_length(py.gt),
        "length_lt": _compared_length(py.lt),
        "length_gte": _compared_length(py.ge),
        "length_lte": _compared_length(py.le),
    }
)
"""{operator: its decision}."""

"""Leaves out the few requests that would prove nothing."""

from collections.abc import Iterator
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode

MAX_INT64 = 2**63 - 1
OWN_ID = "1"


@schemathesis.hook
def filter_case(context: object, case: Case) -> bool:
    return not (_harms_the_caller(case) or _holds_wide_integers(case) or _repeats_a_parameter(case))


def _harms_the_caller(case: Case) -> bool:
    """Whether a request would take the admin's key or role away: all that follows would be 401."""
    values = {str(value) for value in (case.path_parameters or {}).values()}
    path = case.operation.path
    is_account = "/users/" in path and "agents" not in path
    return is_account and case.method in {"DELETE", "PATCH"} and OWN_ID in values


def _holds_wide_integers(case: Case) -> bool:
    """Whether a body that follows its schema has an integer over 64 bits somewhere in it.

    They are refused in free objects too, which a schema of free objects cannot say.
    """
    return case.meta.generation.mode is GenerationMode.POSITIVE and any(
        isinstance(value, int) and abs(value) > MAX_INT64 for value in _walk(case.body)
    )


def _repeats_a_parameter(case: Case) -> bool:
    """Whether a query is meant to be wrong by sending a parameter twice: the last one counts."""
    return case.meta.generation.mode is GenerationMode.NEGATIVE and any(
        isinstance(value, list) for value in (case.query or {}).values()
    )


def _walk(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _walk(item)

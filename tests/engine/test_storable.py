"""What can be stored, and what becomes of what cannot."""

from typing import Any, NamedTuple

import pytest

from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Failure, Outcome, Report, Usage
from pipelit.engine.storable import clean_text, cleaned, flaw, storable


class Pair(NamedTuple):
    name: str
    value: int


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**63) + 1, 1.5, "ä\ud7ff", {"a": [{"b": "\\u0000"}]}, nested(100)]
)
def test_json_data_can_be_stored(value: Any) -> None:
    """Up to the bounds of the contract, and text that only looks bad."""
    assert flaw(value) is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": "x\x00"}, "text with NUL or lone surrogates"),
        ({"\x00": 1}, "text with NUL or lone surrogates"),
        (["\ud800"], "text with NUL or lone surrogates"),
        ([2**64], "an integer over 64 bits"),
        (Pair("\x00", 1), "text with NUL or lone surrogates"),
        ([object()], "a object, which is no JSON data"),
        (nested(101), "nested deeper than 100 levels"),
        (nested(100_000), "nested deeper than 100 levels"),
    ],
)
def test_what_cannot_be_stored_is_told(value: Any, why: str) -> None:
    """However deep it is; and once cleaned it can be."""
    assert flaw(value) == why
    assert flaw(cleaned(value)) is None


def test_an_outcome_that_cannot_be_stored_is_a_failure_that_is_not_retried() -> None:
    """It names the port, and keeps what the attempt used."""
    report = Report(usage=Usage(llm_calls=3))

    result = storable(Outcome(ports={"good": 1, "bad": nested(200)}, report=report))

    assert result == Failure(
        code="UnstorableOutput",
        message="Node output cannot be stored: port 'bad' is nested deeper than 100 levels",
        retryable=False,
        report=report,
    )


def test_what_is_only_told_is_cleaned() -> None:
    """Failures and reports."""
    message = ChatMessage(id="m", role="assistant", content="a\x00b", timestamp="t")
    report = Report(input={"text": "\ud800"}, trace=(message,))

    result = storable(Failure(code="E\x00", message="no\x00", retryable=True, report=report))

    assert isinstance(result, Failure)
    assert (result.code, result.message, result.retryable) == ("E\ufffd", "no\ufffd", True)
    assert result.report.input == {"text": "\ufffd"}
    assert [each.text for each in result.report.trace] == ["a\ufffdb"]


def test_an_outcome_with_nothing_wrong_is_left_alone() -> None:
    """It is what the component made."""
    outcome = Outcome(ports={"output": "x"}, route="a")

    assert storable(outcome) == outcome
    assert clean_text("plain") == "plain"

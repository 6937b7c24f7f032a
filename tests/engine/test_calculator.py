"""The calculator against Python's own arithmetic, and at its bounds."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.calculator import CalculatorError, calculate


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("12*17", "204"),
        ("(1500*12)+(500*0.08)", "18040.0"),
        ("7/2", "3.5"),
        ("7//2", "3"),
        ("-7 % 3", "2"),
        ("2**32-1", "4294967295"),
        ("2**-1", "0.5"),
        ("2**0.5", "1.4142135623730951"),
        ("--1", "1"),
        ("+1.50", "1.5"),
        (" 1 ", "1"),
        ("2**1001", str(2.0**1001)),
    ],
)
def test_values_are_pythons_text_of_the_number(expression, expected):
    """The result is written as Python writes it."""
    assert expected == calculate(expression)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "invalid expression"),
        ("1 +", "invalid expression"),
        ("(-8)**(1/3)", "invalid expression"),
        ("(" * 300 + "1" + ")" * 300, "expression too long"),
        ("1+" * 250 + "1", "expression too long"),
        ("+".join("1" * 60), "expression too long"),
        ("1 & 2", "Unsupported operator: BitAnd"),
        ("~1", "Unsupported operator: Invert"),
        ("not 1", "Unsupported operator: Not"),
        ("'a'", "Unsupported constant: 'a'"),
        ("True", "Unsupported constant: True"),
        ("1j", "Unsupported constant: 1j"),
        ("x", "Unsupported expression: Name"),
        ("abs(1)", "Unsupported expression: Call"),
        ("(1)(2)", "Unsupported expression: Call"),
        ("1 < 2", "Unsupported expression: Compare"),
        ("1/0", "division by zero"),
        ("0.0**-1", "division by zero"),
        ("5 % 0", "division by zero"),
        ("9**9**9", "result too large"),
        ("10**1000" + "*10**1000" * 10, "result too large"),
        ("1e308*10", "result too large"),
        ("1e400", "result too large"),
        ("7**9999", "result too large"),
    ],
)
def test_what_has_no_value_says_why(expression, message):
    """Every refusal has the contract's text."""
    with pytest.raises(CalculatorError) as caught:
        calculate(expression)

    assert message == str(caught.value)


def test_results_may_have_ten_thousand_digits_and_no_more():
    """The digit bound is exact, and printing is not stopped by the interpreter's own limit."""
    nines = "10**1000" + "*10**1000" * 8 + "*10**999"

    assert len(calculate(nines)) == 10_000
    with pytest.raises(CalculatorError, match="too large"):
        calculate(nines + "*10")
    assert sys.get_int_max_str_digits() < 10_000


NUMBERS = st.integers(0, 10**6).map(str) | st.floats(0, 1e6).map(repr)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
            lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
        ),
        inner.map(lambda expression: f"-({expression})"),
    ),
    max_leaves=12,
).filter(lambda expression: len(expression) <= 500)


@given(EXPRESSIONS)
def test_arithmetic_is_pythons(expression):
    """Where Python has a finite answer, the calculator has the same."""
    try:
        expected = repr(eval(expression))
    except (ZeroDivisionError, OverflowError):
        with pytest.raises(CalculatorError):
            calculate(expression)
    else:
        assert expected == calculate(expression)


@given(st.text(alphabet="0123456789+-*/%(). e_jabx'[]{}:,\n#", max_size=60))
def test_any_text_is_a_number_or_a_refusal(text):
    """No text makes the calculator do anything but answer or refuse."""
    try:
        answer = calculate(text)
    except CalculatorError:
        return
    assert float(answer) is not None

"""Arithmetic on literals, and nothing else. Contract: node-types.md §7.4.

The expression is parsed by Python and walked here; no name, call or attribute is ever evaluated.
Sizes are checked before anything large is computed.
"""

import ast
import math
import operator
import warnings
from collections.abc import Callable
from decimal import Decimal

from pipelit.errors import PipelitError

Number = int | float

MAX_CHARS = 500
MAX_NODES = 200
MAX_DEPTH = 50
MAX_DIGITS = 10_000
MAX_EXPONENT = 1000

_BITS_PER_DIGIT = math.log2(10)
_MAX_BITS = int(MAX_DIGITS * _BITS_PER_DIGIT)
_LIMIT = 10**MAX_DIGITS


class CalculatorError(PipelitError):
    """The expression has no value; the text is the contract's, without `Error: `."""


def calculate(expression: str) -> str:
    """Return the value of an arithmetic expression as Python's text of the number.

    Raises:
        CalculatorError: it is no such expression, too large, or divides by zero.
    """
    if len(expression) > MAX_CHARS:
        raise CalculatorError("expression too long")
    tree = _parse(expression)
    # Contexts and operators are syntax nodes of Python's own; only what a person wrote counts.
    if sum(isinstance(node, ast.expr) for node in ast.walk(tree)) > MAX_NODES:
        raise CalculatorError("expression too long")
    try:
        return _format(_evaluate(tree, depth=1))
    except ZeroDivisionError:
        raise CalculatorError("division by zero") from None
    except OverflowError:
        raise CalculatorError("result too large") from None


def _parse(expression: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise CalculatorError("invalid expression") from None


def _evaluate(node: ast.expr, *, depth: int) -> Number:
    if depth > MAX_DEPTH:
        raise CalculatorError("expression too long")
    match node:
        case ast.Constant(value=value):
            return _literal(value)
        case ast.UnaryOp(op=op, operand=operand):
            return _apply_unary(op, _evaluate(operand, depth=depth + 1))
        case ast.BinOp(left=left, op=op, right=right):
            apply = _BINARY.get(type(op))
            if apply is None:
                raise CalculatorError(f"Unsupported operator: {type(op).__name__}")
            lhs, rhs = _evaluate(left, depth=depth + 1), _evaluate(right, depth=depth + 1)
            return _bounded(apply(lhs, rhs))
        case _:
            raise CalculatorError(f"Unsupported expression: {type(node).__name__}")


def _literal(value: object) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CalculatorError(f"Unsupported constant: {value!r}")
    return _bounded(value)


def _apply_unary(op: ast.unaryop, value: Number) -> Number:
    match op:
        case ast.USub():
            return -value
        case ast.UAdd():
            return value
        case _:
            raise CalculatorError(f"Unsupported operator: {type(op).__name__}")


def _multiply(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int):
        # A product has at least the bits of its factors, less one.
        bits = left.bit_length() + right.bit_length() - 1
        if left and right and bits > _MAX_BITS + 1:
            raise CalculatorError("result too large")
    return left * right


def _power(base: Number, exponent: Number) -> Number:
    if not isinstance(base, int) or not isinstance(exponent, int):
        return _real(base**exponent)
    if abs(exponent) > MAX_EXPONENT:
        return _real(float(base) ** exponent)
    if exponent > 0 and (base.bit_length() - 1) * exponent > _MAX_BITS:
        raise CalculatorError("result too large")
    result: Number = base**exponent
    return result


def _real(value: object) -> float:
    if not isinstance(value, int | float):
        # A negative base to a fractional power is complex: no number of this grammar.
        raise CalculatorError("invalid expression")
    return float(value)


def _bounded(value: Number) -> Number:
    too_large = not math.isfinite(value) if isinstance(value, float) else abs(value) >= _LIMIT
    if too_large:
        raise CalculatorError("result too large")
    return value


def _format(value: Number) -> str:
    # Python refuses to print integers of more than 4300 digits; decimals have no such limit.
    return repr(value) if isinstance(value, float) else format(Decimal(value), "f")


_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}

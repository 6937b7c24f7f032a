"""Reads JSON as strictly as the contract wants it.

Contract: README.md §3. Everything this module refuses is one answer: 400 `Malformed JSON body.`
"""

import json
import math
import re
from typing import Any, NoReturn

from pipelit.errors import BadRequest

MAX_NESTING = 100
MAX_INTEGER_DIGITS = 4000

_SUSPICIOUS = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|[0-9]{19}")


def parse_json(text: bytes) -> Any:
    """Parse *text*; duplicate keys: the last wins. Lone surrogates and NUL pass.

    Raises:
        BadRequest: syntax, not UTF-8, `NaN` or infinite numbers, nesting deeper than 100, an
            integer of over 4000 digits.
    """
    try:
        value = json.loads(
            text.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_parse_finite,
            parse_int=_parse_short_int if len(text) > MAX_INTEGER_DIGITS else None,
        )
    except (ValueError, RecursionError):
        raise BadRequest("Malformed JSON body.") from None
    if text.count(b"[") + text.count(b"{") > MAX_NESTING and _is_deep(value):
        raise BadRequest("Malformed JSON body.")
    return value


def may_hold_bad_values(text: bytes) -> bool:
    """Tell cheaply whether *text* could hold a NUL, a lone surrogate or a number over 64 bits."""
    return _SUSPICIOUS.search(text) is not None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _parse_finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value


def _parse_short_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _is_deep(value: Any) -> bool:
    """Tell whether *value* nests deeper than allowed, level by level, without recursion."""
    level = [value]
    for _ in range(MAX_NESTING):
        nested: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                nested.extend(item.values())
            elif isinstance(item, list):
                nested.extend(item)
        if not nested:
            return False
        level = nested
    return any(isinstance(item, dict | list) for item in level)

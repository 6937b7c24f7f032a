"""What a model call costs.

Pure but for `load_prices`, which reads the operator's price file at start.
Contract: engine.md §25.1, §25.2.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import msgspec

from pipelit.errors import PipelitError
from pipelit.llm.models import bare_name, longest_prefix


class Price(msgspec.Struct, frozen=True):
    """USD per 1,000,000 tokens, which is micro-dollars per token."""

    input: Decimal
    output: Decimal

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Return the cost in micro-dollars, rounded half up once."""
        exact = input_tokens * self.input + output_tokens * self.output
        return int(exact.to_integral_value(rounding=ROUND_HALF_UP))


FREE = Price(Decimal(0), Decimal(0))


def _price(given: tuple[str, str]) -> Price:
    return Price(Decimal(given[0]), Decimal(given[1]))


_TABLE = {
    "gpt-4o-mini": _price(("0.15", "0.60")),
    "gpt-4o": _price(("2.50", "10.00")),
    "gpt-4-turbo": _price(("10.00", "30.00")),
    "gpt-4": _price(("30.00", "60.00")),
    "gpt-3.5-turbo": _price(("0.50", "1.50")),
    "o3-mini": _price(("1.10", "4.40")),
    "o1-mini": _price(("3.00", "12.00")),
    "o1": _price(("15.00", "60.00")),
    "claude-3-5-sonnet": _price(("3.00", "15.00")),
    "claude-3-5-haiku": _price(("0.80", "4.00")),
    "claude-3-opus": _price(("15.00", "75.00")),
    "claude-sonnet-4": _price(("3.00", "15.00")),
    "claude-opus-4": _price(("15.00", "75.00")),
}


class PriceFileError(PipelitError):
    """The operator's price file cannot be used; the server does not start."""


class Prices:
    """The price of every model: the built-in table with the operator's own prices laid over it."""

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._own = dict(own or {})
        self._all = {**_TABLE, **self._own}

    def price_of(self, model: str, *, is_local: bool) -> Price | None:
        """Return the price of a call to *model*; None if nobody knows it.

        Args:
            model: the name as configured.
            is_local: the provider was reached at a loopback or private address, where a model
                costs nothing unless the operator says otherwise.
        """
        found = longest_prefix(bare_name(model), self._all)
        if found is not None and found[0] in self._own:
            return found[1]
        if is_local:
            return FREE
        return None if found is None else found[1]


def load_prices(path: Path | None) -> Prices:
    """Read the operator's price file; without one the built-in table alone counts.

    Raises:
        PriceFileError: the file cannot be read or is not `{"<prefix>": [in, out], …}`.
    """
    if path is None:
        return Prices()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PriceFileError(f"MODEL_PRICES: cannot read {path}: {error}") from error
    return Prices(parse_prices(text, source=str(path)))


def parse_prices(text: str, *, source: str) -> dict[str, Price]:
    """Read the text of a price file.

    Args:
        text: JSON, `{"<prefix>": [in, out], …}`, USD per 1,000,000 tokens, none negative.
        source: what to call the file in an error.

    Raises:
        PriceFileError: the text is malformed; the message names the entry.
    """
    try:
        # Decimals are read from the digits, so that 0.1 stays 0.1.
        given = msgspec.json.Decoder(float_hook=Decimal).decode(text)
    except msgspec.DecodeError as error:
        raise PriceFileError(f"MODEL_PRICES: {source} is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise PriceFileError(f"MODEL_PRICES: {source} must hold an object")
    return {bare_name(prefix): _entry(prefix, rates, source) for prefix, rates in given.items()}


def _entry(prefix: str, rates: Any, source: str) -> Price:
    if (
        bare_name(prefix)
        and isinstance(rates, list)
        and len(rates) == 2
        and all(map(_is_rate, rates))
    ):
        return Price(Decimal(rates[0]), Decimal(rates[1]))
    raise PriceFileError(
        f"MODEL_PRICES: {source}: entry {prefix!r} must be [in, out], "
        "two numbers of USD per 1,000,000 tokens, not negative"
    )


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool) and value >= 0

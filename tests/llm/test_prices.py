"""What a call costs."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.llm.prices import FREE, Price, PriceFileError, Prices, load_prices, parse_prices


def test_the_contracts_example() -> None:
    """`gpt-4o-mini-2024-07-18`, 1000 in and 500 out, costs 450 micro-dollars."""
    price = Prices().price_of("gpt-4o-mini-2024-07-18", is_local=False)

    assert price is not None
    assert price.cost(1000, 500) == 450


@pytest.mark.parametrize(("tokens", "cost"), [(1, 0), (3, 0), (4, 1), (10, 2), (11, 2)])
def test_cost_is_rounded_half_up_once(tokens: int, cost: int) -> None:
    """0.15 per token: 10 tokens are 1.5 micro-dollars, which is 2."""
    assert Price(Decimal("0.15"), Decimal(0)).cost(tokens, 0) == cost


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_cost_is_within_half_a_micro_dollar(given_tokens: int, made_tokens: int) -> None:
    """Rounding is never off by more, however large the call."""
    price = Price(Decimal("0.15"), Decimal("0.60"))
    exact = given_tokens * Decimal("0.15") + made_tokens * Decimal("0.60")

    assert abs(price.cost(given_tokens, made_tokens) - exact) <= Decimal("0.5")


def test_resolution_follows_the_table_of_the_contract() -> None:
    """The operator's file, then a local address, then the table, then nobody knows."""
    prices = Prices(parse_prices('{"gpt-4o": [1, 2], "llama": [0.1, 0.2]}', source="f"))

    assert prices.price_of("gpt-4o", is_local=True) == Price(Decimal(1), Decimal(2))
    assert prices.price_of("llama-3", is_local=True) == Price(Decimal("0.1"), Decimal("0.2"))
    assert prices.price_of("gpt-4", is_local=True) == FREE
    assert prices.price_of("gpt-4", is_local=False) == Price(Decimal("30.00"), Decimal("60.00"))
    assert prices.price_of("gpt-4.1", is_local=False) is None


def test_a_longer_prefix_of_the_table_beats_a_shorter_one_of_the_file() -> None:
    """Both are consulted together; only an equal prefix is replaced."""
    prices = Prices(parse_prices('{"GPT-4": [1, 1]}', source="f"))

    mini = prices.price_of("vendor/gpt-4o-mini", is_local=False)
    turbo = prices.price_of("gpt-4-turbo", is_local=False)
    plain = prices.price_of("gpt-4-32k", is_local=False)

    assert mini == Price(Decimal("0.15"), Decimal("0.60"))
    assert turbo == Price(Decimal("10.00"), Decimal("30.00"))
    assert plain == Price(Decimal(1), Decimal(1))


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"a": 1}', '{"a": [1]}', '{"a": [1, -1]}', '{"a": ["1", 2]}', '{"": [1, 2]}', "{"],
)
def test_a_malformed_file_is_refused(text: str) -> None:
    """The server does not start on half a price list; the message names setting and file."""
    with pytest.raises(PriceFileError, match=r"MODEL_PRICES: .*prices\.json"):
        parse_prices(text, source="prices.json")


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    """No file where one was promised is an error, no setting is none."""
    with pytest.raises(PriceFileError, match="cannot read"):
        load_prices(tmp_path / "absent.json")

    assert load_prices(None).price_of("o1", is_local=False) is not None

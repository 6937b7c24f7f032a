"""The budget of an epic: what is used up, and whether another model call may begin.

Pure. Tokens are counted, money is integer micro-dollars. Contract: engine.md §25.4.
"""

from decimal import Decimal

import msgspec

EXCEEDED = "BudgetExceededError"
UNKNOWN_PRICE = "UnknownPriceError"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An epic's budget, and what has been taken from it. A budget of None has no end.

    `used_…`: recorded in the epic, or by runs that are not rolled up yet. `reserved_…`: what
    calls under way may still use.
    """

    budget_tokens: int | None = None
    budget_micros: int | None = None
    used_tokens: int = 0
    used_micros: int = 0
    reserved_tokens: int = 0
    reserved_micros: int = 0

    @property
    def is_full(self) -> bool:
        """Whether calls under way may use up the rest: the next one waits."""
        return _above(self.used_tokens + self.reserved_tokens, self.budget_tokens) or _above(
            self.used_micros + self.reserved_micros, self.budget_micros
        )


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a model call may use. `micros` None: nobody knows the model's price."""

    model: str
    tokens: int
    micros: int | None


def overdraft(account: Account) -> str | None:
    """Return what to say when more is used than the budget allows; None if it is not."""
    if account.budget_tokens is not None and account.used_tokens > account.budget_tokens:
        return (
            f"Epic budget exceeded: {account.used_tokens} tokens used "
            f"(budget: {account.budget_tokens} tokens)"
        )
    if account.budget_micros is not None and account.used_micros > account.budget_micros:
        used, budget = _dollars(account.used_micros), _dollars(account.budget_micros)
        return f"Epic budget exceeded: ${used} spent (budget: ${budget})"
    return None


def price_problem(account: Account, estimate: Estimate) -> str | None:
    """Return what to say when money counts and nobody knows what the call costs."""
    if account.budget_micros is None or estimate.micros is not None:
        return None
    return (
        f"No price known for model '{estimate.model}'; a USD budget applies. "
        "Add the model to MODEL_PRICES or remove the budget."
    )


def _above(amount: int, budget: int | None) -> bool:
    return budget is not None and amount > budget


def _dollars(micros: int) -> str:
    return f"{Decimal(micros) / 1_000_000:.4f}"

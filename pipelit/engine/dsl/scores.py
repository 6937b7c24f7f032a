"""How much well-known models cost and can do, as a rule of thumb for choosing one.

Contract: engine.md §27.4.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Preference(Enum):
    """What the best model is best at."""

    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    MOST_CAPABLE = "most_capable"


_SCORES: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "gpt-4o-mini": (20, 90, 60),
        "gpt-4o": (50, 70, 85),
        "gpt-4-turbo": (60, 60, 82),
        "gpt-4": (70, 50, 80),
        "o1-mini": (30, 80, 75),
        "o1": (80, 40, 90),
        "o3-mini": (35, 85, 80),
        "claude-3-haiku": (15, 95, 55),
        "claude-haiku-3-5": (18, 90, 60),
        "claude-3-5-sonnet": (40, 70, 85),
        "claude-sonnet-4": (45, 65, 88),
        "claude-opus-4": (90, 30, 95),
        "llama-3.1-8b": (5, 95, 45),
        "llama-3.1-70b": (25, 60, 70),
        "llama-3.1-405b": (50, 40, 80),
        "mixtral-8x7b": (15, 80, 55),
        "mixtral-8x22b": (30, 60, 65),
        "mistral-large": (35, 55, 70),
        "mistral-small": (10, 90, 45),
        "qwen-2.5-72b": (25, 60, 70),
        "deepseek-v3": (15, 75, 72),
        "deepseek-r1": (20, 50, 78),
        "gemma-2-27b": (15, 70, 58),
    }
)
"""Cost, speed and capability by a part of the model's id."""


def score_of(model: str, preference: Preference) -> int | None:
    """Return how well *model* serves the preference, None if nothing is known about it.

    The longest known part of its id counts, so that `gpt-4o-mini` is not taken for `gpt-4`.
    """
    parts = [part for part in _SCORES if part in model.lower()]
    if not parts:
        return None
    cost, speed, capability = _SCORES[max(parts, key=len)]
    match preference:
        case Preference.CHEAPEST:
            return 100 - cost
        case Preference.FASTEST:
            return speed
        case Preference.MOST_CAPABLE:
            return capability

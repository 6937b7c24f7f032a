"""What is known about models by their names: context windows, and habits of their providers.

Pure. Contract: engine.md §21.3, §21.6, §24.1.
"""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from pipelit.llm.types import ProviderType

DEFAULT_WINDOW = 128_000
"""Tokens assumed for a model the table does not know."""

_WINDOWS = {
    "claude-3-5-sonnet": 200_000,
    "claude-3-5-haiku": 200_000,
    "claude-3-opus": 200_000,
    "claude-sonnet-4": 200_000,
    "claude-opus-4": 200_000,
    "claude-haiku-4": 200_000,
    "claude": 200_000,
    "gpt-4o-mini": 128_000,
    "gpt-4o": 128_000,
    "gpt-4-turbo": 128_000,
    "gpt-4": 8_192,
    "gpt-3.5-turbo": 16_384,
    "o3-mini": 200_000,
    "o1": 200_000,
    "o3": 200_000,
    "o1-mini": 128_000,
}

_BOUNDARIES = ("-", ":", "@")

_Value = TypeVar("_Value")


class Window(msgspec.Struct, frozen=True):
    """A context window in tokens, and what was wrong with the settings that were passed over."""

    tokens: int
    problems: tuple[str, ...] = ()


def bare_name(model: str) -> str:
    """Return the name that tables know: lower case, the text after the last `/`."""
    return model.lower().rpartition("/")[2]


def longest_prefix(name: str, table: Mapping[str, _Value]) -> tuple[str, _Value] | None:
    """Find the longest key of *table* that names *name*'s family.

    A key matches only if the name ends there or goes on with `-`, `:` or `@`, so that `gpt-4.1`
    is not a `gpt-4`.
    """
    fitting = (key for key in table if _names(key, name))
    best = max(fitting, key=len, default=None)
    return None if best is None else (best, table[best])


def window_of(model: str, *, agent_setting: object = None, model_setting: object = None) -> Window:
    """Decide a model's context window.

    Args:
        model: the name as configured.
        agent_setting: `context_window` of the agent's `extra_config`; None if absent.
        model_setting: the same of the `ai_model` node.
    """
    problems: list[str] = []
    for owner, setting in (("agent", agent_setting), ("ai_model", model_setting)):
        if setting is None:
            continue
        if isinstance(setting, int) and not isinstance(setting, bool) and setting > 0:
            return Window(setting, tuple(problems))
        problems.append(f"context_window of the {owner} must be a positive integer; it is ignored")
    known = longest_prefix(bare_name(model), _WINDOWS)
    return Window(DEFAULT_WINDOW if known is None else known[1], tuple(problems))


def wants_system_prompt_fallback(
    provider_type: ProviderType, base_url: str, setting: object
) -> bool:
    """Tell whether the system prompt is repeated as a first user message.

    Args:
        provider_type: of the credential.
        base_url: of the credential; may be empty.
        setting: `system_prompt_fallback` of the `ai_model`: `always`, `never`, anything else is
            `auto`.
    """
    if setting in ("always", "never"):
        return setting == "always"
    return provider_type == "openai_compatible" and host_of(base_url) != "api.openai.com"


def is_anthropic_service(provider_type: ProviderType, base_url: str) -> bool:
    """Tell whether a credential leads to Anthropic itself, not to something that imitates it."""
    host = host_of(base_url)
    at_home = not base_url or host == "anthropic.com" or host.endswith(".anthropic.com")
    return provider_type == "anthropic" and at_home


def host_of(base_url: str) -> str:
    """Return the lower-case host of a URL; "" if it has none or cannot be read."""
    try:
        return (urlsplit(base_url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _names(key: str, name: str) -> bool:
    return name.startswith(key) and (len(name) == len(key) or name[len(key)] in _BOUNDARIES)

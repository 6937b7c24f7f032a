"""Which model an AI node calls: its `llm` edge, the model's config, the credential.

Contract: engine.md §21.1, §21.6, §25.2.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from pipelit.engine.context import budget, reserve
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Usage
from pipelit.llm.models import is_anthropic_service, wants_system_prompt_fallback, window_of
from pipelit.llm.prices import Prices
from pipelit.llm.types import ModelRequest, Provider, Providers, ProviderSpec, ToolSpec
from pipelit.nodes.base import NodeCall, config_error

FALLBACK_ID = "system_prompt_fallback"
_FALLBACK_HEAD = "[System instructions — follow these for the entire conversation]\n"
_SAMPLING = (
    "temperature",
    "max_tokens",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
)
DEFAULT_TIMEOUT = 120
DEFAULT_RETRIES = 2
MAX_RETRIES = 10

OnCall: TypeAlias = Callable[[ProviderSpec, str, str, Usage, float], object]
"""(provider, model, how it ended, what it used, seconds) of one call.

It ends as `success`, `failed` or `cancelled`.
"""

FindCredential: TypeAlias = Callable[[int], Awaitable[ProviderSpec | Literal["missing", "not_llm"]]]


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """What AI nodes need to reach models."""

    providers: Providers
    find_credential: FindCredential
    prices: Prices
    is_local: Callable[[ProviderSpec], Awaitable[bool]]
    """Whether the provider is reached at a loopback or private address."""
    on_call: OnCall = lambda *_: None
    """Told of every call; for metrics."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A resolved model, ready to be called."""

    name: str
    provider: Provider
    spec: ProviderSpec
    sampling: dict[str, Any]
    native_search: bool
    window: int
    """Tokens of prompt and answer together."""
    prompt_budget: int
    """Tokens; zero or less: not trimmed."""
    answer_reserve: int
    """Tokens that an answer may have."""
    repeats_system_prompt: bool
    warnings: tuple[dict[str, Any], ...]
    price: Callable[[int, int], int] | None
    """(input tokens, output tokens) -> micro-dollars; None when nobody knows the price."""
    on_call: OnCall = lambda *_: None

    def system_messages(self, prompt: str, timestamp: str) -> tuple[ChatMessage, ...]:
        """Return what carries the system prompt in a call; none of it is ever stored."""
        if not prompt:
            return ()
        system = ChatMessage(id="system", role="system", content=prompt, timestamp=timestamp)
        if not self.repeats_system_prompt:
            return (system,)
        text = _FALLBACK_HEAD + prompt
        return (
            system,
            ChatMessage(id=FALLBACK_ID, role="user", content=text, timestamp=timestamp),
        )

    def request(
        self, messages: tuple[ChatMessage, ...], tools: tuple[ToolSpec, ...]
    ) -> ModelRequest:
        """Build one call."""
        return ModelRequest(
            model=self.name,
            messages=messages,
            tools=tools,
            native_search=self.native_search,
            **self.sampling,
        )


async def resolve_model(call: NodeCall, parts: ModelParts) -> Model:
    """Find the model of an AI node.

    Raises:
        NodeError: `ConfigError`, with what is missing.
    """
    node = call.attached.model
    owner = call.node.node_id
    if node is None:
        raise config_error(f"Node '{owner}' has no connected ai_model node via edge_label='llm'.")
    config, extra = node.config, node.extra
    credential_id, name = config.get("llm_credential_id"), config.get("model_name")
    if not credential_id or not name:
        raise config_error(
            f"Node '{node.node_id}' (ai_model) requires both model_name and llm_credential "
            "on its config."
        )
    found = await parts.find_credential(credential_id)
    if found == "missing":
        raise config_error(
            f"Credential ID {credential_id} not found for node '{node.node_id}'. "
            "It may have been deleted."
        )
    if found == "not_llm":
        raise config_error(
            f"Credential ID {credential_id} for node '{node.node_id}' has no LLM provider "
            "configuration."
        )
    retries = config.get("max_retries")
    spec = msgspec.structs.replace(
        found,
        timeout=float(config.get("timeout") or DEFAULT_TIMEOUT),
        max_retries=min(DEFAULT_RETRIES if retries is None else retries, MAX_RETRIES),
    )
    window = window_of(
        name,
        agent_setting=call.extra.get("context_window"),
        model_setting=extra.get("context_window"),
    )
    prompt_budget = budget(window.tokens, config.get("max_tokens"))
    price = parts.prices.price_of(name, is_local=await parts.is_local(spec))
    return Model(
        name=name,
        provider=parts.providers.get(spec),
        spec=spec,
        sampling={key: config[key] for key in _SAMPLING if config.get(key) is not None},
        native_search=bool(extra.get("use_native_search"))
        and is_anthropic_service(spec.provider_type, spec.base_url),
        window=window.tokens,
        prompt_budget=prompt_budget,
        answer_reserve=reserve(window.tokens, config.get("max_tokens")),
        repeats_system_prompt=wants_system_prompt_fallback(
            spec.provider_type, spec.base_url, extra.get("system_prompt_fallback")
        ),
        warnings=_warnings(window.problems, prompt_budget),
        price=None if price is None else price.cost,
        on_call=parts.on_call,
    )


def _warnings(problems: tuple[str, ...], prompt_budget: int) -> tuple[dict[str, Any], ...]:
    found = [{"code": "context_window_invalid", "message": problem} for problem in problems]
    if prompt_budget <= 0:
        text = "The context window leaves no room for a prompt; it is not trimmed."
        found.append({"code": "context_budget", "message": text})
    return tuple(found)

"""What the agent loop says to a model and hears from it, whatever the provider.

Contract: engine.md §21, §25.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from pipelit.engine.messages import ChatMessage, MessageUsage, ToolCall
from pipelit.errors import PipelitError

ProviderType = Literal["openai", "openai_compatible", "glm", "anthropic"]


class ToolSpec(msgspec.Struct, frozen=True):
    """A function offered to the model. `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a provider: a credential, decrypted, with the client options of one model."""

    credential_id: int
    provider_type: ProviderType
    api_key: str
    base_url: str = ""
    organization_id: str = ""
    custom_headers: dict[str, str] = {}
    timeout: float = 120.0
    """Seconds without a byte from the provider before the call fails."""
    max_retries: int = 2

    def __repr__(self) -> str:
        """Name the credential; its key and headers are secrets."""
        return f"ProviderSpec(credential_id={self.credential_id}, {self.provider_type})"


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call. Parameters that are None are not sent."""

    model: str
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    native_search: bool = False
    begun: tuple[dict[str, Any], ...] = ()
    """Blocks of an answer that the provider paused, and goes on with."""


class InvalidToolCall(msgspec.Struct, frozen=True):
    """A tool call whose arguments are not a JSON object; the model is told so."""

    id: str
    name: str
    raw_arguments: str


class ModelResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer. `usage` is None when the provider reported none.

    `calls` keeps the order of the response. `text` is what streamed, joined.
    """

    text: str
    calls: tuple[ToolCall | InvalidToolCall, ...] = ()
    usage: MessageUsage | None = None
    finish_reason: str = ""
    paused: tuple[dict[str, Any], ...] = ()
    """Blocks of an answer that is not complete: the provider waits to be asked to go on."""


class ProviderError(PipelitError):
    """A model call failed. `code` is the class name a client may see, e.g. `RateLimitError`."""

    def __init__(
        self, message: str, *, code: str, retryable: bool, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.status = status


class ContextOverflow(ProviderError):
    """The provider says that the prompt is longer than the model's context window."""


class Provider(Protocol):
    """One model provider. Implementations hold no per-call state."""

    async def complete(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None],
        on_alive: Callable[[], None],
    ) -> ModelResponse:
        """Call the model, streamed; return when the answer is complete.

        Args:
            request: what to ask.
            on_text: called with each piece of text as it arrives; never empty; must not block.
            on_alive: called whenever any byte of the answer arrives.

        Raises:
            ProviderError: the provider refused, failed or broke off.

        Cancelling closes the connection at once.
        """
        ...


class Providers(Protocol):
    """Gives the provider for a credential."""

    def get(self, spec: ProviderSpec) -> Provider:
        """Return a client for *spec*, shared between calls with equal specs."""
        ...

"""Anthropic's messages.

Contract: engine.md §21.2, §21.4, §21.6, §22.4, §25.1.
"""

from collections.abc import Iterable
from typing import Any

import httpx2
import msgspec

from pipelit.engine.messages import ChatMessage, MessageUsage, ToolCall, sanitise
from pipelit.llm.answer import ServerEvent, token_usage, unreadable
from pipelit.llm.client import (
    MAX_RETRIES,
    Connection,
    Fold,
    custom_headers,
    http_timeout,
)
from pipelit.llm.models import is_anthropic_service
from pipelit.llm.types import (
    InvalidToolCall,
    ModelRequest,
    ModelResponse,
    ProviderError,
    ProviderSpec,
    ToolSpec,
)

ANTHROPIC_URL = "https://api.anthropic.com"
API_VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 4096

_NATIVE_SEARCH = {"type": "web_search_20250305", "name": "web_search"}

# What the provider reports inside a stream, as the SDK names it when it comes as a status.
_STREAM_ERRORS = {
    "invalid_request_error": ("BadRequestError", False),
    "authentication_error": ("AuthenticationError", False),
    "permission_error": ("PermissionDeniedError", False),
    "not_found_error": ("NotFoundError", False),
    "rate_limit_error": ("RateLimitError", True),
    "overloaded_error": ("OverloadedError", True),
}


class AnthropicDialect:
    """The provider type `anthropic`, at home or imitated."""

    def connect(self, spec: ProviderSpec, http: httpx2.AsyncClient) -> Connection:
        """Build the SDK's client; nothing of it is left to the server's environment.

        The API version is ours to say: with the one the SDK would send, Anthropic refuses the
        sampling parameters of the contract. The key goes where that version wants it and where
        every imitation looks for it.
        """
        import anthropic  # a second and 60 MB, paid by the first call

        # All secrets are among the client's headers; those of a request the SDK would log.
        key = {"X-Api-Key": spec.api_key} if spec.api_key else {}
        client = anthropic.AsyncAnthropic(
            api_key="none",
            base_url=spec.base_url or ANTHROPIC_URL,
            timeout=http_timeout(spec),
            max_retries=min(max(spec.max_retries, 0), MAX_RETRIES),
            http_client=http,
            default_headers={"anthropic-version": API_VERSION, **custom_headers(spec), **key},
        )

        async def send(body: dict[str, Any]) -> httpx2.Response:
            answer: Any = await client.post(
                "/v1/messages",
                cast_to=httpx2.Response,
                body=body,
                stream=True,
                stream_cls=anthropic.AsyncStream[Any],
                options={"headers": {"Authorization": anthropic.Omit()}},
            )
            return answer  # type: ignore[no-any-return]  # `cast_to` decides

        return Connection(send, anthropic)

    def body(self, request: ModelRequest, spec: ProviderSpec, *, stream: bool) -> dict[str, Any]:
        """Build the request's JSON; parameters that are not set are left out."""
        clean = [message for message in map(sanitise, request.messages) if message is not None]
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
            "messages": [
                *_turns(message for message in clean if message.role != "system"),
                *([{"role": "assistant", "content": list(request.begun)}] if request.begun else ()),
            ],
        }
        system = "\n\n".join(message.text for message in clean if message.role == "system")
        optional = {
            "system": system or None,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "tools": _tools(request, spec) or None,
            "stream": stream or None,
        }
        return body | {name: value for name, value in optional.items() if value is not None}

    def fold(self, request: ModelRequest) -> Fold:  # this family names its calls
        """Begin to read an answer to *request*."""
        return _AnthropicFold()


def _tools(request: ModelRequest, spec: ProviderSpec) -> list[dict[str, Any]]:
    tools = [_tool(tool) for tool in request.tools]
    if request.native_search and is_anthropic_service(spec.provider_type, spec.base_url):
        tools.append(_NATIVE_SEARCH)
    return tools


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.parameters,
    }


def _turns(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Write messages as turns; the API wants user and assistant in alternation."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [_tool_result(message)]
    if isinstance(message.content, str):
        # The API refuses text that is only white space.
        texts = [{"type": "text", "text": message.content}] if message.content.strip() else []
    else:
        texts = list(message.content)
    return [*texts, *(_tool_use(call) for call in message.tool_calls)]


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}


def _tool_result(message: ChatMessage) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": message.tool_call_id or "",
        "content": message.content,
    }
    # Every failure of a tool is told to the model in this form (engine.md §22.4).
    if message.text.startswith("Error: "):
        result["is_error"] = True
    return result


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class _Delta(msgspec.Struct):
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    citation: Any = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None


class _Message(msgspec.Struct):
    """A whole answer, or its empty beginning in a stream."""

    type: str = ""
    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Error(msgspec.Struct):
    type: str = ""


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: dict[str, Any] | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: _Error | None = None


_EVENTS = msgspec.json.Decoder(_Event)
_BODIES = msgspec.json.Decoder(_Message)


class _GrowingCall:
    """A tool call whose input arrives as pieces of JSON text."""

    def __init__(self, block: _Block) -> None:
        self.id = block.id or ""
        self.name = block.name or ""
        self.given = block.input
        self.text = ""

    def read(self) -> ToolCall | InvalidToolCall:
        given = self.given
        if self.text:
            try:
                given = msgspec.json.decode(self.text)
            except msgspec.DecodeError:
                given = None
        if isinstance(given, dict):
            return ToolCall(self.id, self.name, given)
        return InvalidToolCall(self.id, self.name, self.text)


class _AnthropicFold:
    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[int, _GrowingCall] = {}  # {index of the block: call}
        self._blocks: dict[int, dict[str, Any]] = {}  # as they came, for an answer that pauses
        self._inputs: dict[int, str] = {}  # {index of the block: JSON text of its input}
        self._usage: _Usage | None = None
        self._stop_reason = ""
        self._done = False

    @property
    def is_complete(self) -> bool:
        return self._done

    @property
    def is_usable(self) -> bool:
        return self._done or bool(self._stop_reason)

    def add(self, event: ServerEvent) -> str:
        try:
            told = _EVENTS.decode(event.data)
        except msgspec.DecodeError as error:
            raise unreadable("is not understood") from error
        if told.error is not None:
            raise _reported(told.error)
        self._merge_usage(told.usage)
        if told.message is not None:
            self._merge_usage(told.message.usage)
        if told.type == "message_stop":
            self._done = True
        if told.content_block is not None:
            return self._begin(told.index, told.content_block)
        return self._grow(told.index, told.delta or _Delta())

    def add_body(self, body: bytes) -> None:
        try:
            message = _BODIES.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise unreadable("is not understood") from error
        if message.error is not None or message.content is None:
            raise unreadable("is not understood")
        self._merge_usage(message.usage)
        self._stop_reason = message.stop_reason or ""
        for index, block in enumerate(message.content):
            self._begin(index, block)

    def _begin(self, index: int, given: dict[str, Any]) -> str:
        try:
            block = msgspec.convert(given, _Block)
        except msgspec.ValidationError as error:
            raise unreadable("is not understood") from error
        self._blocks[index] = given
        if block.type == "tool_use":
            self._calls[index] = _GrowingCall(block)
        return self._say(block.text) if block.type == "text" else ""

    def _grow(self, index: int, delta: _Delta) -> str:
        self._stop_reason = delta.stop_reason or self._stop_reason
        if delta.partial_json and index in self._calls:
            self._calls[index].text += delta.partial_json
        block = self._blocks.get(index, {})
        if delta.partial_json:
            self._inputs[index] = self._inputs.get(index, "") + delta.partial_json
        if delta.text:
            block["text"] = f"{block.get('text') or ''}{delta.text}"
        if delta.citation is not None:
            block["citations"] = [*(block.get("citations") or ()), delta.citation]
        return self._say(delta.text)

    def _paused(self) -> tuple[dict[str, Any], ...]:
        """Return the blocks to go on with, if the provider paused in the middle of its answer."""
        if self._stop_reason != "pause_turn":
            return ()
        for index, text in self._inputs.items():
            try:
                self._blocks.setdefault(index, {})["input"] = msgspec.json.decode(text)
            except msgspec.DecodeError as error:
                raise unreadable("is not understood") from error
        blocks = (self._blocks[index] for index in sorted(self._blocks))
        # Empty texts are refused when they are sent back.
        return tuple(b for b in blocks if b.get("type") != "text" or b.get("text"))

    def _say(self, text: str | None) -> str:
        self._texts.append(text or "")
        return text or ""

    def _merge_usage(self, usage: _Usage | None) -> None:
        # Counts are totals so far, in whichever event they come; a later one replaces.
        if usage is not None:
            known = {} if self._usage is None else _given(self._usage)
            self._usage = _Usage(**(known | _given(usage)))

    def response(self) -> ModelResponse:
        return ModelResponse(
            text="".join(self._texts),
            calls=tuple(self._calls[index].read() for index in sorted(self._calls)),
            usage=_total(self._usage),
            finish_reason=self._stop_reason,
            paused=self._paused(),
        )


def _reported(error: _Error) -> ProviderError:
    code, retryable = _STREAM_ERRORS.get(error.type, ("InternalServerError", True))
    return ProviderError("provider reported an error", code=code, retryable=retryable)


def _given(usage: _Usage) -> dict[str, int]:
    fields = msgspec.structs.asdict(usage)
    return {name: count for name, count in fields.items() if count is not None}


def _total(usage: _Usage | None) -> MessageUsage | None:
    counts = {} if usage is None else _given(usage)
    if not counts:
        return None
    made = counts.pop("output_tokens", 0)
    return token_usage(sum(counts.values()), made)

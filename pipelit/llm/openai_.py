"""OpenAI's chat completions, and everybody who speaks like them.

Contract: engine.md §21.2, §21.4, §21.7, §25.1; first-run.md §7 for the exact wire form.
"""

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
from pipelit.llm.types import (
    InvalidToolCall,
    ModelRequest,
    ModelResponse,
    ProviderError,
    ProviderSpec,
    ToolSpec,
)

OPENAI_URL = "https://api.openai.com/v1"
GLM_URL = "https://api.z.ai/api/paas/v4/"

_PARAMETERS = ("temperature", "max_tokens", "top_p")
_OPENAI_PARAMETERS = (*_PARAMETERS, "frequency_penalty", "presence_penalty", "response_format")


class OpenAIDialect:
    """The family `openai`, `openai_compatible` and `glm`."""

    def connect(self, spec: ProviderSpec, http: httpx2.AsyncClient) -> Connection:
        """Build the SDK's client.

        What the environment could say (key, organisation, project, base URL) is given here in
        full, so that a variable of the server's environment never reaches a user's provider.
        """
        import openai  # half a second and 40 MB, paid by the first call

        client = openai.AsyncOpenAI(
            api_key=spec.api_key or "none",
            admin_api_key="",
            base_url=base_url(spec),
            timeout=http_timeout(spec),
            max_retries=min(max(spec.max_retries, 0), MAX_RETRIES),
            http_client=http,
            default_headers=custom_headers(spec),
        )
        client.organization = spec.organization_id or None
        client.project = None
        headers = {} if spec.api_key else {"Authorization": openai.Omit()}

        async def send(body: dict[str, Any]) -> httpx2.Response:
            answer: Any = await client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                body=body,
                stream=True,
                stream_cls=openai.AsyncStream[Any],
                options={"headers": headers},
            )
            return answer  # type: ignore[no-any-return]  # `cast_to` decides

        return Connection(send, openai)

    def body(self, request: ModelRequest, spec: ProviderSpec, *, stream: bool) -> dict[str, Any]:
        """Build the request's JSON; parameters that are not set are left out."""
        clean = filter(None, map(sanitise, request.messages))
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [_message(message) for message in clean],
        }
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        names = _PARAMETERS if spec.provider_type == "glm" else _OPENAI_PARAMETERS
        for name in names:
            value = getattr(request, name)
            if value is not None:
                body[name] = value
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def fold(self, request: ModelRequest) -> Fold:
        """Begin to read an answer to *request*."""
        return _OpenAIFold(fallback_id=f"call_{request.messages[-1].id}")


def base_url(spec: ProviderSpec) -> str:
    """Return the URL that paths like `/chat/completions` are appended to."""
    return spec.base_url or (GLM_URL if spec.provider_type == "glm" else OPENAI_URL)


def _message(message: ChatMessage) -> dict[str, Any]:
    if message.role == "tool":
        return {
            "role": "tool",
            "tool_call_id": message.tool_call_id or "",
            "content": message.text,
        }
    if message.role == "user":
        return {"role": "user", "content": message.content}
    wire: dict[str, Any] = {"role": message.role, "content": message.text or None}
    if message.tool_calls:
        wire["tool_calls"] = [_call(call) for call in message.tool_calls]
    return wire


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.arguments).decode()
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _CallPiece(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Words(msgspec.Struct):
    """A `delta` of a stream, or the `message` of a body: they say the same things."""

    content: str | list[Any] | None = None
    tool_calls: list[_CallPiece] | None = None


class _Choice(msgspec.Struct):
    delta: _Words | None = None
    message: _Words | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_CHUNKS = msgspec.json.Decoder(_Chunk)


class _GrowingCall:
    """A tool call whose arguments arrive in pieces."""

    def __init__(self, call_id: str, index: int | None) -> None:
        self.id = call_id
        self.index = index
        self.name = ""
        self.arguments = ""

    def grow(self, function: _Function) -> None:
        self.name = self.name or function.name or ""
        if isinstance(function.arguments, dict):
            self.arguments = msgspec.json.encode(function.arguments).decode()
        else:
            self.arguments += function.arguments or ""


class _OpenAIFold:
    def __init__(self, fallback_id: str) -> None:
        self._fallback_id = fallback_id
        self._texts: list[str] = []
        self._calls: list[_GrowingCall] = []
        self._usage: _Usage | None = None
        self._finish_reason = ""
        self._done = False
        self._has_choice = False

    @property
    def is_complete(self) -> bool:
        return self._done

    @property
    def is_usable(self) -> bool:
        # Some providers leave out `[DONE]`. After a reason only the usage can be missing.
        return self._done or bool(self._finish_reason)

    def add(self, event: ServerEvent) -> str:
        if event.data.strip() == "[DONE]":
            self._done = True
            return ""
        return self._take(event.data.encode())

    def add_body(self, body: bytes) -> None:
        self._take(body)
        if not self._has_choice:
            raise unreadable("is not understood")

    def _take(self, data: bytes) -> str:
        try:
            chunk = _CHUNKS.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise unreadable("is not understood") from error
        if chunk.error is not None:
            raise ProviderError("provider reported an error", code="APIError", retryable=True)
        self._usage = chunk.usage or self._usage
        return "".join(self._choose(choice) for choice in (chunk.choices or [])[:1])

    def _choose(self, choice: _Choice) -> str:
        self._has_choice = True
        self._finish_reason = choice.finish_reason or self._finish_reason
        words = choice.delta or choice.message or _Words()
        is_whole = choice.delta is None  # a body's calls come in one piece each
        for piece in words.tool_calls or []:
            call = self._begin(piece) if is_whole else self._call_of(piece)
            call.grow(piece.function or _Function())
        text = _text(words.content)
        self._texts.append(text)
        return text

    def _call_of(self, piece: _CallPiece) -> _GrowingCall:
        # Pieces of one call share its index. Some providers send no index, others the same index
        # for every call; a new id always begins a new call.
        for call in reversed(self._calls):
            if piece.index == call.index and piece.id in (None, "", call.id):
                return call
        return self._begin(piece)

    def _begin(self, piece: _CallPiece) -> _GrowingCall:
        call_id = piece.id or f"{self._fallback_id}_{len(self._calls)}"
        self._calls.append(_GrowingCall(call_id, piece.index))
        return self._calls[-1]

    def response(self) -> ModelResponse:
        return ModelResponse(
            text="".join(self._texts),
            calls=tuple(read_call(call.id, call.name, call.arguments) for call in self._calls),
            usage=_usage(self._usage),
            finish_reason=self._finish_reason,
        )


def read_call(call_id: str, name: str, arguments: str) -> ToolCall | InvalidToolCall:
    """Read a tool call. No arguments at all are an empty object."""
    try:
        parsed = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        parsed = None
    if isinstance(parsed, dict):
        return ToolCall(call_id, name, parsed)
    return InvalidToolCall(call_id, name, arguments)


def _text(content: str | list[Any] | None) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content or ""


def _usage(usage: _Usage | None) -> MessageUsage | None:
    if usage is None or (usage.prompt_tokens is None and usage.completion_tokens is None):
        return None
    return token_usage(usage.prompt_tokens, usage.completion_tokens)

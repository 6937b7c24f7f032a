"""Chat messages in the one form that ports, journal, checkpoints and providers share.

Contract: engine.md §2.1, §18.5, §21.4.
"""

from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]

_PROVIDER_ONLY_BLOCKS = frozenset(
    {
        "thinking",
        "redacted_thinking",
        "server_tool_use",
        "web_search_tool_result",
        "web_search_result",
    }
)


class ToolCall(msgspec.Struct, frozen=True):
    """A model's wish to call a tool. `arguments` is a JSON object."""

    id: str
    name: str
    arguments: dict[str, Any]


class MessageUsage(msgspec.Struct, frozen=True):
    """Tokens of the model call that produced an assistant message."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message. `timestamp` is contract text (UTC without offset)."""

    id: str
    role: Role
    content: str | list[dict[str, Any]]
    timestamp: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    usage: MessageUsage | None = None

    @property
    def text(self) -> str:
        """The message's text: of a block list its text blocks, joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(
            str(block.get("text", "")) for block in self.content if block.get("type") == "text"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the stored form: absent fields are left out."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


def parse_message(stored: Any) -> ChatMessage:
    """Read a stored message back."""
    return msgspec.convert(stored, ChatMessage)


def sanitise(message: ChatMessage) -> ChatMessage | None:
    """Drop what must be neither sent nor stored; None if nothing is left of the message."""
    if isinstance(message.content, str):
        empty = not message.content and message.role != "tool"
        return None if empty and not message.tool_calls else message
    blocks = [_clean_block(block) for block in message.content if _keeps(block, message.role)]
    if not blocks and not message.tool_calls:
        return None
    return msgspec.structs.replace(message, content=blocks or "")


def _keeps(block: dict[str, Any], role: Role) -> bool:
    if block.get("type") == "text" and not block.get("text"):
        return False
    return not (role == "assistant" and block.get("type") in _PROVIDER_ONLY_BLOCKS)


def _clean_block(block: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "citations"}

"""Hides the API keys an agent was given, wherever its run shows what it said and did.

The model needs them; events, logs, traces, outputs and memories do not.

Contract: node-types.md §8.1.
"""

import json
from collections.abc import Iterable, Iterator

from pipelit.engine.messages import ChatMessage, parse_message
from pipelit.nodes.masking import Mask

MIN_KEY_CHARS = 16
"""What is shorter is no key of ours; hiding it would tear holes into every text."""

_GIVES_KEYS = "create_agent_user"
_FIELD = "api_key"


class KeyMask:
    """Learns keys from the messages of one run and hides them in all of them."""

    def __init__(self) -> None:
        self._known: set[str] = set()  # ids of messages
        self._keys: set[str] = set()
        self._mask = Mask(())
        self._hidden: dict[str, ChatMessage] = {}

    def hide(self, messages: Iterable[ChatMessage]) -> tuple[ChatMessage, ...]:
        """Return the messages of a run without its keys; whatever is new is learned from."""
        messages = tuple(messages)
        for message in messages:
            if message.id not in self._known:
                self._known.add(message.id)
                self._learn(set(_keys_in(message)))
        return tuple(map(self._hide, messages)) if self._keys else messages

    def text(self, text: str) -> str:
        """Return a text without the keys known so far."""
        return str(self._mask.json(text)) if self._keys else text

    def _learn(self, keys: set[str]) -> None:
        if keys - self._keys:
            self._keys |= keys
            self._mask = Mask(self._keys)
            self._hidden.clear()

    def _hide(self, message: ChatMessage) -> ChatMessage:
        hidden = self._hidden.get(message.id)
        if hidden is None:
            hidden = parse_message(self._mask.json(message.to_json()))
            self._hidden[message.id] = hidden
        return hidden


def _keys_in(message: ChatMessage) -> Iterator[str]:
    """Yield what the message gives away: the result of a tool, or what a tool is called with."""
    found: list[object] = [call.arguments.get(_FIELD) for call in message.tool_calls]
    if message.role == "tool" and (message.name or "").startswith(_GIVES_KEYS):
        found.append(_field_of(message.text))
    for key in found:
        if isinstance(key, str) and len(key) >= MIN_KEY_CHARS:
            yield key


def _field_of(text: str) -> object:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return told.get(_FIELD) if isinstance(told, dict) else None

"""Fitting a conversation into a model's context window. Contract: engine.md §24.2–24.4."""

import math
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from pipelit.engine.messages import ChatMessage

SAFETY = 512
PER_MESSAGE = 4
CHARS_PER_TOKEN = 4


def reserve(window: int, max_tokens: int | None) -> int:
    """Return the tokens that are kept free for the answer."""
    return max_tokens or min(16_384, window // 4)


def budget(window: int, max_tokens: int | None) -> int:
    """Return the tokens a prompt may have; zero or less means: do not trim."""
    return window - reserve(window, max_tokens) - SAFETY


def count_tokens(message: ChatMessage) -> int:
    """Estimate the tokens of a message: no tokenizer is downloaded."""
    chars = len(message.text)
    if message.tool_calls:
        chars += len(msgspec.json.encode(message.tool_calls))
    return math.ceil(chars / CHARS_PER_TOKEN) + PER_MESSAGE


def trim(messages: Sequence[ChatMessage], room: int) -> tuple[ChatMessage, ...]:
    """Keep the longest suffix of a conversation that fits *room* tokens.

    The kept part starts with a user message, so it never holds a tool result without the message
    that asked for it. If what follows the last user message is too much, the oldest rounds of it
    (an answer with the results of its calls) go; the last stays, or the model would do it again.
    If even the last user message does not fit, it is kept alone, its text cut in the middle. The
    system prompt is not part of the conversation: its caller keeps it.
    """
    starts = [index for index, message in enumerate(messages) if message.role == "user"]
    if not starts:
        return tuple(messages)
    sizes = [count_tokens(message) for message in messages]
    left = [*accumulate(reversed(sizes), initial=0)][::-1]  # tokens from each message to the end
    for start in starts:
        if left[start] <= room:
            return tuple(messages[start:])
    last = starts[-1]
    if sizes[last] > room:
        return (_cut(messages[last], room),)
    rounds = [i for i in range(last + 1, len(messages)) if messages[i].role == "assistant"]
    fitting = (i for i in rounds if sizes[last] + left[i] <= room)
    kept = next(fitting, rounds[-1] if rounds else last + 1)
    return (messages[last], *messages[kept:])


def _cut(message: ChatMessage, room: int) -> ChatMessage:
    chars = max(0, (room - PER_MESSAGE) * CHARS_PER_TOKEN)
    text = message.text
    head = (chars + 1) // 2
    tail = chars - head
    return msgspec.structs.replace(message, content=text[:head] + text[len(text) - tail :])

"""When the older messages of a conversation are summarised, and what a call sends then.

Pure. A summary says before which message it stands for everything; it is stored among the
messages of a thread under an id that says the same. Contract: engine.md §24.5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipelit.engine.context import count_tokens
from pipelit.engine.messages import ChatMessage

DEFAULT_TRIGGER = 70
DEFAULT_KEEP = 20
TASK = (
    "Summarise the conversation that follows for an assistant who goes on with it. Keep facts, "
    "names, numbers, decisions, results of tools and open questions. Answer with the summary only."
)
HEAD = "[Summary of the earlier conversation]\n"
_ID = "summary_before:"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What stands for all messages before the one with the id `before`."""

    before: str
    message: ChatMessage

    def to_stored(self) -> ChatMessage:
        """Return the message that keeps the summary in a thread."""
        return msgspec.structs.replace(self.message, id=_ID + self.before)


class Due(msgspec.Struct, frozen=True):
    """Messages to be summarised, an earlier summary first; the rest begins with `before`."""

    messages: tuple[ChatMessage, ...]
    before: str


class Compaction(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's settings. `trigger`: percent of the window; `keep`: messages left alone."""

    trigger: int = DEFAULT_TRIGGER
    keep: int = DEFAULT_KEEP

    def plan(
        self,
        conversation: Sequence[ChatMessage],
        summary: Summary | None,
        *,
        window: int,
        beside: int,
    ) -> Due | None:
        """Decide what to summarise before a call; None: nothing.

        Args:
            conversation: all messages, the summarised ones included.
            summary: what stands for the oldest of them already.
            window: of the model, in tokens.
            beside: tokens of the system prompt.
        """
        sent = compacted(conversation, summary)
        if (beside + sum(map(count_tokens, sent))) * 100 <= self.trigger * window:
            return None
        cut = max(0, len(sent) - self.keep)
        while cut > 0 and sent[cut].role == "tool":  # results stay with the answer that asked
            cut -= 1
        if cut <= (summary is not None):
            return None
        return Due(sent[:cut], sent[cut].id)


def read_compaction(extra: Mapping[str, Any]) -> Compaction | None:
    """Read the settings of an agent; what makes no sense reads as default."""
    if extra.get("compacting") != "summarize":
        return None
    return Compaction(
        trigger=_within(extra.get("compacting_trigger"), 1, 100) or DEFAULT_TRIGGER,
        keep=_within(extra.get("compacting_keep"), 1, 1_000_000) or DEFAULT_KEEP,
    )


def compacted(
    conversation: Sequence[ChatMessage], summary: Summary | None
) -> tuple[ChatMessage, ...]:
    """Return a conversation as it is sent: the summary in place of what it stands for."""
    if summary is None:
        return tuple(conversation)
    starts = (i for i, message in enumerate(conversation) if message.id == summary.before)
    told = msgspec.structs.replace(summary.message, content=HEAD + summary.message.text)
    return (told, *conversation[next(starts, 0) :])


def transcript(messages: Sequence[ChatMessage]) -> str:
    """Write messages down for whoever summarises them."""
    return "\n\n".join(map(_line, messages))


def split_stored(
    messages: Sequence[ChatMessage],
) -> tuple[tuple[ChatMessage, ...], Summary | None]:
    """Tell the messages of a thread from the newest summary among them."""
    kept = tuple(message for message in messages if not message.id.startswith(_ID))
    summaries = [message for message in messages if message.id.startswith(_ID)]
    if not summaries:
        return kept, None
    newest = summaries[-1]
    return kept, Summary(before=newest.id.removeprefix(_ID), message=newest)


def _line(message: ChatMessage) -> str:
    calls = msgspec.json.encode(message.tool_calls).decode() if message.tool_calls else ""
    return f"{message.role}: {' '.join(part for part in (message.text, calls) if part)}"


def _within(value: object, least: int, most: int) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    return None

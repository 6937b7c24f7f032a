"""What an attempt of a node gives back, and what it used.

Contract: engine.md §8.3, §25.1, §31.
"""

from typing import Any

import msgspec

from pipelit.engine.messages import ChatMessage

Warning_ = dict[str, Any]
"""A warning of the log metadata: `code`, `message` and further keys."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens, calls and money; money is integer micro-dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros: int = 0
    llm_calls: int = 0
    tool_invocations: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cost_micros=self.cost_micros + other.cost_micros,
            llm_calls=self.llm_calls + other.llm_calls,
            tool_invocations=self.tool_invocations + other.tool_invocations,
        )

    def to_wire(self) -> dict[str, Any]:
        """Return the contract's `token_usage` object."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.total_tokens,
            "cost_usd": micros_to_usd(self.cost_micros),
            "llm_calls": self.llm_calls,
            "tool_invocations": self.tool_invocations,
        }


def micros_to_usd(micros: int) -> float:
    """Turn micro-dollars into the number the API shows: USD, up to 6 decimals."""
    return round(micros / 1_000_000, 6)


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an attempt has to say for its log row, however it ends.

    `input` holds the log row's `text`, `system_prompt`, `input_template` when present.
    """

    usage: Usage | None = None
    model: str | None = None
    input: dict[str, Any] | None = None
    trace: tuple[ChatMessage, ...] = ()
    todos: tuple[dict[str, Any], ...] = ()
    warnings: tuple[Warning_, ...] = ()
    child_execution_ids: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A successful attempt: its ports and its side effects.

    `ports`: {port: JSON value}. `messages` are appended to the shared conversation.
    `output` sets `state.output` (reply_chat; promoted agents) when not UNSET.
    `delay_seconds` makes a timed wait: the activation ends that much later.
    `loop_items` makes the node a loop over them: it succeeds after the last iteration.
    `spoken` is announced as `chat_message` together with the result.
    `remember` is appended to the node's memory of the thread (engine.md §23.4).
    """

    ports: dict[str, Any]
    route: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    state_patch: dict[str, Any] = {}
    output: Any = msgspec.UNSET
    delay_seconds: float | None = None
    loop_items: list[Any] | None = None
    spoken: str | None = None
    remember: tuple[ChatMessage, ...] = ()
    report: Report = Report()


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A failed attempt. `code`: engine.md §31."""

    code: str
    message: str
    retryable: bool
    report: Report = Report()


def json_size(value: Any) -> int:
    """Return the length in bytes of a value's JSON text."""
    return len(msgspec.json.encode(value))

"""Fitting a conversation into a context window, and what of a message may be sent."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.context import budget, count_tokens, trim
from pipelit.engine.messages import ChatMessage, ToolCall, parse_message, sanitise


def message(role: Any, content: Any = "", **more: Any) -> ChatMessage:
    return ChatMessage(id="m", role=role, content=content, timestamp="2026-01-01T00:00:00", **more)


CALL = ToolCall("c1", "add", {"a": 1})


def test_a_budget_leaves_room_for_the_answer() -> None:
    """`max_tokens`, or a quarter of the window and at most 16384; and 512 for safety."""
    assert budget(128_000, 4096) == 128_000 - 4096 - 512
    assert budget(8192, None) == 8192 - 2048 - 512
    assert budget(200_000, None) == 200_000 - 16_384 - 512


def test_tokens_are_a_quarter_of_the_characters_and_four_per_message() -> None:
    """Rounded up; the JSON of tool calls counts."""
    assert count_tokens(message("user", "")) == 4
    assert count_tokens(message("user", "12345")) == 6
    encoded = '[{"id":"c1","name":"add","arguments":{"a":1}}]'
    assert count_tokens(message("assistant", "", tool_calls=(CALL,))) == 4 + -(-len(encoded) // 4)


def test_the_longest_suffix_that_starts_with_a_user_message_is_kept() -> None:
    """A tool result is never kept without the answer that asked for it."""
    old, new = message("user", "x" * 400), message("user", "y" * 40)
    answer = message("assistant", "", tool_calls=(CALL,))
    result = message("tool", "3", tool_call_id="c1")
    rest = (new, answer, result)
    room = sum(map(count_tokens, rest))

    assert trim((old, message("assistant", "z"), *rest), room) == rest
    assert trim((old, *rest), room + count_tokens(old)) == (old, *rest)


def test_a_last_user_message_that_is_too_long_is_cut_in_the_middle() -> None:
    """It is kept alone, its beginning and its end."""
    long = message("user", "a" * 500 + "b" * 500)

    (kept,) = trim((message("user", "x"), long, message("assistant", "y" * 5000)), 54)

    assert kept.text == "a" * 100 + "b" * 100
    assert count_tokens(kept) == 54


def test_of_a_long_run_the_oldest_rounds_go() -> None:
    """Whole: an answer with all its results. What was asked and the last round stay."""
    asked = message("user", "go on")
    rounds = [
        (
            message("assistant", f"step {n}", tool_calls=(CALL,)),
            message("tool", "x" * 400, tool_call_id="c1"),
            message("tool", "y" * 400, tool_call_id="c2"),
        )
        for n in range(4)
    ]
    run = (message("user", "old"), asked, *(each for part in rounds for each in part))
    room = sum(map(count_tokens, (asked, *rounds[2], *rounds[3])))

    assert trim(run, room) == (asked, *rounds[2], *rounds[3])
    assert trim(run, room - 1) == (asked, *rounds[3])
    assert trim(run, count_tokens(asked)) == (asked, *rounds[3])


ROLES = st.sampled_from(["user", "assistant"])
TEXTS = st.text("ab", max_size=200)


@given(st.lists(st.tuples(ROLES, TEXTS), min_size=1, max_size=12), st.integers(5, 300))
def test_what_is_kept_is_the_longest_suffix_that_fits(
    pairs: list[tuple[str, str]], room: int
) -> None:
    """Whenever there is a user message at all."""
    messages = [message(role, text) for role, text in pairs]
    users = [index for index, each in enumerate(messages) if each.role == "user"]

    kept = trim(messages, room)

    if not users:
        assert kept == tuple(messages)
        return
    assert kept[0].role == "user"
    fitting = [i for i in users if sum(map(count_tokens, messages[i:])) <= room]
    if fitting:
        assert kept == tuple(messages[fitting[0] :])
    elif count_tokens(messages[users[-1]]) > room:
        assert len(kept) == 1
        assert count_tokens(kept[0]) <= room
    else:  # the oldest answers to it go
        answers = messages[users[-1] + 1 :]
        assert kept[0] == messages[users[-1]]
        assert kept[1:] == tuple(answers[len(answers) - len(kept) + 1 :])
        assert len(kept) == 2 or sum(map(count_tokens, kept)) <= room


class TestSanitising:
    def test_empty_text_blocks_are_dropped(self) -> None:
        """And a message of which nothing is left."""
        text = {"type": "text", "text": "hi"}
        empty = {"type": "text", "text": ""}

        cleaned = sanitise(message("user", [empty, text]))

        assert cleaned is not None
        assert cleaned.content == [text]
        assert sanitise(message("user", [empty])) is None
        assert sanitise(message("user", "")) is None

    def test_a_message_with_tool_calls_stays_even_without_text(self) -> None:
        """Its results would have no question."""
        assert sanitise(message("assistant", "", tool_calls=(CALL,))) is not None
        assert sanitise(message("assistant", [], tool_calls=(CALL,))) is not None

    def test_an_empty_tool_result_stays(self) -> None:
        """The call would have no answer."""
        assert sanitise(message("tool", "", tool_call_id="c1")) is not None

    def test_only_assistants_lose_thinking_and_search_blocks(self) -> None:
        """And the citations of what is left."""
        blocks = [
            {"type": "thinking", "thinking": "…"},
            {"type": "server_tool_use"},
            {"type": "text", "text": "hi", "citations": [1]},
        ]

        answer = sanitise(message("assistant", blocks))

        assert answer is not None
        assert answer.content == [{"type": "text", "text": "hi"}]

    def test_the_text_of_blocks_is_joined_by_newlines(self) -> None:
        """Blocks without text do not count."""
        blocks = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]

        assert message("user", blocks).text == "a\nb"


def test_a_message_survives_storage() -> None:
    """Absent fields are not stored."""
    stored = message("assistant", "hi", tool_calls=(CALL,)).to_json()

    assert parse_message(stored) == message("assistant", "hi", tool_calls=(CALL,))
    assert set(message("user", "hi").to_json()) == {"id", "role", "content", "timestamp"}

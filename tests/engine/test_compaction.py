"""Older messages give way to a summary. Contract: engine.md §24.5."""

from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.compaction import (
    Compaction,
    Summary,
    compacted,
    read_compaction,
    split_stored,
    transcript,
)
from pipelit.engine.messages import ChatMessage, ToolCall

AT = "2026-01-01T00:00:00"


def said(number: int, role: str = "user", chars: int = 36) -> ChatMessage:
    """Return a message of `chars / 4 + 4` tokens."""
    calls = (ToolCall("c", "f", {}),) if role == "calling" else ()
    kind = "assistant" if role == "calling" else role
    return ChatMessage(
        id=f"m{number}",
        role=kind,  # type: ignore[arg-type]
        content="x" * chars,
        timestamp=AT,
        tool_calls=calls,
    )


def summary(before: str) -> Summary:
    message = ChatMessage(id="s", role="user", content="Short.", timestamp=AT)
    return Summary(before=before, message=message)


def test_nothing_is_due_below_the_trigger() -> None:
    """70 % of the window, unless told otherwise; the system prompt counts."""
    conversation = [said(n) for n in range(5)]  # 65 tokens

    assert Compaction(keep=2).plan(conversation, None, window=100, beside=5) is None
    due = Compaction(keep=2).plan(conversation, None, window=100, beside=6)
    assert due is not None
    assert ([m.id for m in due.messages], due.before) == (["m0", "m1", "m2"], "m3")


def test_results_of_tools_stay_with_the_answer_that_asked() -> None:
    """Else no provider would take the rest."""
    conversation = [said(0), said(1, "calling"), said(2, "tool"), said(3, "tool"), said(4)]

    due = Compaction(keep=2).plan(conversation, None, window=10, beside=0)

    assert due is not None
    assert due.before == "m1"


def test_the_next_summary_is_made_of_the_last_one() -> None:
    """And of what has come since; a summary alone is never summarised."""
    conversation = [said(n) for n in range(6)]

    due = Compaction(keep=2).plan(conversation, summary("m2"), window=10, beside=0)
    alone = Compaction(keep=2).plan(conversation, summary("m4"), window=10, beside=0)

    assert due is not None
    assert [m.id for m in due.messages] == ["s", "m2", "m3"]
    assert alone is None


def test_a_call_sends_the_summary_in_place_of_the_older_messages() -> None:
    """Introduced as one."""
    sent = compacted([said(n) for n in range(4)], summary("m3"))

    assert [m.id for m in sent] == ["s", "m3"]
    assert sent[0].text == "[Summary of the earlier conversation]\nShort."


def test_a_thread_keeps_the_newest_summary() -> None:
    """Among its messages, and not as one of them."""
    older, newer = summary("m1"), summary("m3")
    stored = [said(0), said(1), older.to_stored(), said(2), said(3), newer.to_stored(), said(4)]

    messages, found = split_stored(stored)

    assert [m.id for m in messages] == ["m0", "m1", "m2", "m3", "m4"]
    assert found is not None
    assert (found.before, found.message.text) == ("m3", "Short.")


def test_the_transcript_names_who_said_what() -> None:
    """Calls of tools included."""
    calling = said(1, "calling", chars=1)

    text = transcript([said(0, chars=1), calling])

    assert text == 'user: x\n\nassistant: x [{"id":"c","name":"f","arguments":{}}]'


def test_settings_that_make_no_sense_read_as_default() -> None:
    """70 and 20."""
    odd = {"compacting": "summarize", "compacting_trigger": 0, "compacting_keep": "x"}

    assert read_compaction({"compacting": None}) is None
    assert read_compaction(odd) == Compaction(trigger=70, keep=20)
    assert read_compaction({**odd, "compacting_trigger": 100}) == Compaction(trigger=100, keep=20)


@given(
    st.lists(st.sampled_from(["user", "assistant", "calling", "tool"]), max_size=30),
    st.integers(1, 8),
)
def test_what_is_left_holds_the_last_messages_whole(roles: list[str], keep: int) -> None:
    """Summarised and kept messages are all there are; at least so many are kept."""
    conversation = [said(number, role) for number, role in enumerate(roles)]

    due = Compaction(keep=keep).plan(conversation, None, window=1, beside=0)

    if due is not None:
        rest = compacted(conversation, summary(due.before))[1:]
        assert [*due.messages, *rest] == conversation
        assert len(rest) >= keep
        assert rest[0].role != "tool"

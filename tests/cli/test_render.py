"""What a person sees of a run: pure, line by line."""

import pytest

from pipelit.cli.render import View, answer_text, clean, duration
from tests.cli.fake_server import COMPLETED_RUN, RUN_ID, SUMMARY, event, node


def show(*events: dict[str, object], width: int = 80) -> list[str]:
    view = View(width=width)
    return [line.text for one in events for line in view.feed(one)]


def test_a_run_reads_from_top_to_bottom() -> None:
    """Every node has a line with time, name, state and duration; tools stand indented."""
    assert show(*COMPLETED_RUN) == [
        f"   0.00 s  execution {RUN_ID} started",
        "   0.10 s  agent_1 (Agent)              running",
        "   0.20 s    calculator                 success   1 ms",
        "             | 12*17 is 204.",
        "   0.40 s  agent_1 (Agent)              success   248 ms",
        "   0.50 s  execution                    completed 300 ms, 12 tokens",
    ]


def test_no_line_of_an_ordinary_run_is_wider_than_80_columns() -> None:
    """A long text is wrapped, so an old terminal shows it."""
    text = "A long answer with many words. " * 20
    lines = show(*COMPLETED_RUN, event(7, "chat_message", node_id="agent_1", text=text))

    assert max(map(len, lines)) <= 80
    assert len(lines) > 12


def test_the_live_area_shows_running_nodes_and_the_text_being_written() -> None:
    """Pieces are joined; index 0 starts a new text; the finished text leaves the live area."""
    view = View()
    assert [line.text.strip() for line in view.live(0.0)] == ["waiting for its turn"]
    for one in (
        event(1, "execution_started"),
        node(2, "agent_1", "running"),
        event(None, "chat_delta", node_id="agent_1", text="void", index=0),
        event(None, "chat_delta", node_id="agent_1", text="It ", index=0),
        event(None, "chat_delta", node_id="agent_1", text="left.", index=1),
    ):
        view.feed(one)

    shown = [line.text for line in view.live(1772442302.2)]
    assert shown == [
        "           agent_1 (Agent)              running   2.0 s",
        "             | It left.",
    ]
    view.feed(event(3, "chat_message", node_id="agent_1", text="It left."))
    assert len(view.live(1772442302.2)) == 1
    view.feed(node(4, "agent_1", "success", duration_ms=1))
    assert view.live(1772442302.2) == []


def test_the_end_leaves_status_and_answer() -> None:
    """A command decides its exit code and its last words by them."""
    done, failed = View(), View()
    for one in COMPLETED_RUN:
        done.feed(one)
    told = failed.feed(event(1, "execution_failed", error="Node a failed: no"))

    assert (done.status, done.answer) == ("completed", "12*17 is 204.")
    assert (failed.status, failed.answer) == ("failed", None)
    assert told[-1].text.strip() == f"again: pipelit executions retry {RUN_ID}"


def test_failures_retries_skips_and_questions_say_why() -> None:
    """The reason stands on the line of the node."""
    text = "\n".join(
        show(
            node(1, "a", "failed", duration_ms=5, error="HTTP 429", will_retry=True, retry_in=1),
            node(2, "b", "skipped", reason="route not taken"),
            event(3, "execution_interrupted", node_id="c", prompt="Pay?"),
            event(4, "execution_cancelled"),
        )
    )

    assert "failed    5 ms, HTTP 429, again in 1 s" in text
    assert "skipped   route not taken" in text
    assert "asks      Pay?" in text
    assert "answer: pipelit executions resume " in text
    assert "cancelled" in text


def test_unknown_events_and_pending_nodes_show_nothing() -> None:
    """A newer server may say more than this program knows."""
    assert show(event(1, "something_new"), node(2, "a", "pending")) == []


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x1b[31mb", "a[31mb"), ("a\u202eb\r\n", "ab\n"), ("tab\t", "tab\t")]
)
def test_no_text_can_steer_the_terminal(text: str, shown: str) -> None:
    """Control and direction characters are dropped."""
    assert clean(text) == shown


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"output": "hi"}, "hi"),
        ({"message": "hi"}, "hi"),
        ({"output": {"a": 1}}, '{"a":1}'),
        ({"node_outputs": {"n": {}}}, '{"node_outputs":{"n":{}}}'),
        (None, None),
    ],
)
def test_the_reply_of_a_run_is_its_text_or_its_json(output: object, text: str | None) -> None:
    """Every form of final_output is shown."""
    assert answer_text(output) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0 ms"), (999, "999 ms"), (3400, "3.4 s"), (125_000, "2 min 5 s")],
)
def test_durations_are_for_people(milliseconds: int, text: str) -> None:
    """Three units are enough."""
    assert duration(milliseconds) == text


def test_a_child_execution_is_shown_below_its_node() -> None:
    """Its nodes are indented and do not mix with those of the root."""
    assert SUMMARY["child_count"] == 0
    lines = show(
        event(1, "child_node_status", node_id="x", status="success", node_label="x",
              display_name="Code", duration_ms=2, child_execution_id="c", parent_node_id="w"),
    )  # fmt: skip

    assert lines == ["   0.00 s    x (Code)                   success   2 ms"]

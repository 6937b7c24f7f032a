"""What `pipelit top` shows, and what its keys do. Contract: operations.md §4."""

from typing import Any

import pytest

from pipelit.cli.keyboard import parse_keys
from pipelit.cli.top_screen import draw, span
from pipelit.cli.top_state import Cancel, Facts, Key, Quit, View, clamp, press, rank_actors

STATUSES = ("pending", "running", "interrupted", "completed", "failed", "cancelled")
INFO: dict[str, Any] = {
    "version": "0.1.0", "node_id": "ea4bd907-1", "epoch": 7, "started_at": "2026-03-02T10:00:00",
    "uptime_s": 3_723.0, "stuck_executions": 0, "loop_lag_ms_p99": 1.25,
    "executions": dict.fromkeys(STATUSES, 2), "actors": {"execution": 2, "hub": 1, "supervisor": 3},
    "store": {"queue_depth": 1, "commits": 99, "batch_p50": 3, "commit_ms_p99": 4.25},
}  # fmt: skip


def execution(number: int) -> dict[str, Any]:
    return {
        "execution_id": f"3f1c8a52-6d0e-4b7f-9a55-0c2e8d714b9{number}", "status": "running",
        "workflow_slug": f"flow-{number}", "started_at": f"2026-03-02T11:0{number}:00",
    }  # fmt: skip


def actor(path: str, **changed: Any) -> dict[str, Any]:
    return {
        "path": path, "kind": "hub", "state": "running", "incarnation": 1, "restarts": 0,
        "started_at": "2026-03-02T10:00:00", "mailbox_depth": 0, "mailbox_capacity": 64,
        "handling": None, "handling_ms": None, "messages_handled": 5, "last_error": None,
        "detail": {}, **changed,
    }  # fmt: skip


def record(event: str, path: str, **changed: Any) -> dict[str, Any]:
    return {
        "seq": 1, "timestamp": 1_772_442_300.0, "event": event, "actor": path, "kind": "hub",
        "reason": None, "error": None, "detail": {}, **changed,
    }  # fmt: skip


CRASH = record("actor_crashed", "/hub", error={"type": "RuntimeError", "message": "boom"})


def facts(**changed: Any) -> Facts:
    known = {
        "info": INFO,
        "executions": (execution(1), execution(2)),
        "actors": (actor("/hub", restarts=1), actor("/manager")),
        "restarts": 1,
        "records": (CRASH,),
    }
    return Facts(**known | changed)


def screen(view: View | None = None, **changed: Any) -> list[str]:
    rows = draw(facts(**changed), view or View(), width=80, height=24, now=1_772_442_300.0)
    return [row.text for row in rows]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 16), (200, 60)])
def test_a_screen_has_exactly_the_size_of_the_terminal(width: int, height: int) -> None:
    """Whatever is in it: many rows, long names, control characters."""
    nasty = {**execution(1), "workflow_slug": "x" * 300 + "\x1b[2J\n"}
    many = tuple(actor(f"/chats/{n}" + "y" * 100) for n in range(500))
    rows = draw(
        facts(executions=(nasty,) * 200, actors=many, records=(CRASH,) * 500),
        View(section="actors", row=400),
        width=width,
        height=height,
        now=0.0,
    )

    assert len(rows) == height
    assert max(len(row.text) for row in rows) <= width
    assert all(text.isprintable() for text in (row.text for row in rows))
    assert any(row.text.startswith("> /chats/400") for row in rows)


def test_the_screen_answers_an_operators_questions() -> None:
    """What runs, for how long, which actors were in trouble, how writing goes, what happened."""
    text = "\n".join(screen())

    for words in (
        "running 2", "failed 2", "queue 1", "commit p99 4.2 ms", "loop p99 1.2 ms", "restarts 1",
        "stuck executions 0", "up 1h02m", "1m03s", "flow-1", "/hub", "0/64",
        "actor_crashed  /hub  RuntimeError: boom",
    ):  # fmt: skip
        assert words in text, words


def test_a_terminal_that_is_too_small_is_told_so() -> None:
    """Instead of half a screen."""
    (row,) = draw(facts(), View(), width=40, height=10, now=0.0)

    assert row.text.startswith("At least 60×16")


def test_an_actor_is_opened_with_its_last_error_and_its_records() -> None:
    """And closed again."""
    error = {"type": "RuntimeError", "message": "boom", "traceback": "…"}
    known = facts(actors=(actor("/hub", last_error=error),))
    view, _ = press(View(section="actors"), Key.ENTER, known)
    rows = draw(known, view, width=80, height=24, now=0.0)
    text = "\n".join(row.text for row in rows)

    assert "last error     RuntimeError: boom" in text
    assert "actor_crashed" in text
    assert press(view, Key.ESCAPE, known)[0].opened is None


def test_an_execution_is_cancelled_after_a_yes() -> None:
    """Any other key means no."""
    chosen = execution(2)["execution_id"]
    view, nothing = press(View(row=1), Key.CANCEL, facts())

    assert (view.asks, nothing) == (chosen, None)
    assert screen(view)[-1].startswith(f" Cancel {chosen}? y/n")
    assert press(view, Key.YES, facts())[1] == Cancel(chosen)
    assert press(view, Key.QUIT, facts()) == (View(row=1, notice="Not cancelled."), None)


def test_only_executions_are_cancelled() -> None:
    """Nothing is asked at another actor."""
    assert press(View(section="actors"), Key.CANCEL, facts())[0].asks is None


def test_the_choice_stays_inside_what_there_is() -> None:
    """Also when rows go away."""
    down = press(press(View(), Key.DOWN, facts())[0], Key.DOWN, facts())[0]

    assert down.row == 1
    assert clamp(down, facts(executions=())).row == 0
    assert press(View(), Key.UP, facts())[0].row == 0
    assert press(View(), Key.TAB, facts())[0].section == "actors"
    assert press(View(), Key.QUIT, facts())[1] == Quit()


def test_the_most_troubled_actors_come_first() -> None:
    """Not running, then restarts, then mail."""
    calm, full = actor("/calm"), actor("/full", mailbox_depth=9)
    hurt, down = actor("/hurt", restarts=1), actor("/down", state="restarting")

    assert [a["path"] for a in rank_actors([calm, full, hurt, down])] == [
        "/down", "/hurt", "/full", "/calm",
    ]  # fmt: skip


def test_keys_are_read_as_terminals_send_them() -> None:
    """Arrows in both modes, several at once, and nothing for the rest."""
    assert list(parse_keys("\x1b[A\x1bOBq")) == [Key.UP, Key.DOWN, Key.QUIT]
    assert list(parse_keys("zé\t\r\x1b")) == [Key.TAB, Key.ENTER, Key.ESCAPE]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (247, "4m07s"), (11_100, "3h05m"), (1_051_200, "12d04h")],
)
def test_spans_fit_a_column(seconds: float, text: str) -> None:
    """At most eight characters."""
    assert span(seconds) == text

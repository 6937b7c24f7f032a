"""Log lines: one pipeline for every logger, nothing secret in it, nothing endless."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import trio

from pipelit.logs import (
    MAX_LINE,
    configure_logging,
    correlation,
    log_supervision,
    redact,
    set_level,
)

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    """Log to a file as JSON and hand out what was written; afterwards the root is as before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    path = tmp_path / "log"
    configure_logging(level="INFO", log_format="auto", log_file=path)
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def cleaned(**fields: object) -> dict[str, object]:
    return dict(redact(None, "info", dict(fields)))


@pytest.mark.parametrize(
    "name", ["api_key", "Authorization", "metrics_token", "PASSWORD", "Set-Cookie", "client_secret"]
)
def test_a_secret_is_masked_by_its_name_at_any_depth(name: str) -> None:
    """The value is gone wherever the name stands."""
    line = cleaned(outer={"list": [{name: "geheim"}]}, **{name: "geheim"})

    assert "geheim" not in json.dumps(line)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET /ws/?token=abc HTTP/1.1", "GET /ws/?… HTTP/1.1"),
        ("https://h/a?b=c#d then", "https://h/a?… then"),
        ("postgresql://u:geheim@h/db", "postgresql://****@h/db"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ****"),
        ("key sk-0123456789abcdef!", "key sk-****!"),
        ("Really? Yes.", "Really? Yes."),
    ],
)
def test_secrets_inside_texts_are_masked(text: str, clean: str) -> None:
    """Query strings, passwords in URLs and bearer tokens never reach a log."""
    assert cleaned(event=text)["event"] == clean


def test_counts_whose_name_sounds_secret_are_shown() -> None:
    """A number of tokens is no token."""
    assert cleaned(total_tokens=12, api_key="", key_id=3) == {
        "total_tokens": 12, "api_key": "", "key_id": 3,
    }  # fmt: skip


def test_a_line_is_bounded_whatever_is_logged(lines: Lines) -> None:
    """Long texts are cut, long lines are replaced by a short one that says so."""
    structlog.get_logger("t").info("big", **{f"f{i}": "x" * 3000 for i in range(40)})
    structlog.get_logger("t").info("y" * 100_000)

    first, second = lines()
    assert first["event"] == "big"
    assert isinstance(first["cut_from"], int)
    assert first["cut_from"] > MAX_LINE
    assert len(str(second["event"])) < 5_000


async def test_lines_of_every_logger_carry_the_correlation_ids(lines: Lines) -> None:
    """Ours and foreign loggers, in this task and in tasks it starts."""

    async def child() -> None:
        logging.getLogger("foreign").warning("from %s", "afar")

    with correlation(execution_id="e1"):
        structlog.get_logger("t").info("near")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
    structlog.get_logger("t").info("outside")

    assert [(line["event"], line.get("execution_id")) for line in lines()] == [
        ("near", "e1"), ("from afar", "e1"), ("outside", None),
    ]  # fmt: skip


def test_a_supervision_record_is_one_line_with_its_own_time(lines: Lines) -> None:
    """The record keeps its fields; a crash is an error, a start is detail."""
    record = {"seq": 7, "timestamp": 12.5, "actor": "/hub", "detail": {"next": "restart"}}

    log_supervision({**record, "event": "actor_crashed"})
    log_supervision({**record, "event": "actor_started"})

    (line,) = lines()
    assert {name: line[name] for name in record} == record
    assert line["event"] == "actor_crashed"
    assert line["level"] == "error"


def test_an_exception_keeps_the_end_of_its_traceback(lines: Lines) -> None:
    """The last line names the error."""
    try:
        raise RuntimeError("the cause")
    except RuntimeError:
        structlog.get_logger("t").exception("broke")

    assert str(lines()[0]["exception"]).endswith("RuntimeError: the cause")


def test_the_level_changes_at_once(lines: Lines) -> None:
    """PATCH /settings/ needs no restart."""
    logger = structlog.get_logger("t")
    logger.debug("unseen")
    set_level("DEBUG")
    logger.debug("seen")

    assert [line["event"] for line in lines()] == ["seen"]


def test_console_lines_are_for_people(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    """The clock time, the level and the event stand in front."""
    configure_logging(log_format="console")
    structlog.get_logger("t").info("hello", api_key="geheim")

    text = capsys.readouterr().out
    assert "hello" in text
    assert "geheim" not in text

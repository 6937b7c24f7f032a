"""Log lines: one pipeline for every logger, nothing secret in it, nothing endless."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import trio

from pipelit.log_writer import BackgroundHandler
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

    def read() -> list[dict[str, object]]:
        flush()
        return [json.loads(line) for line in path.read_text().splitlines()]

    yield read
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def flush() -> None:
    for handler in logging.getLogger().handlers:
        handler.flush()


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
    flush()

    text = capsys.readouterr().out
    assert "hello" in text
    assert "geheim" not in text


def explode(api_key: str, question: str) -> None:
    raise RuntimeError(f"no answer to Bearer {api_key}")


def console_traceback(capsys: pytest.CaptureFixture[str], level: str) -> str:
    configure_logging(log_format="console", level=level)
    try:
        explode("geheim-0123456789", "Why?")
    except RuntimeError:
        structlog.get_logger("t").exception("broke")
    flush()
    return capsys.readouterr().out


def test_tracebacks_on_a_terminal_show_code_and_no_locals(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    """Locals may hold what people wrote."""
    text = console_traceback(capsys, "INFO")

    assert "RuntimeError" in text
    assert "in explode" in text
    assert "Why?" not in text.replace('"Why?"', "")
    assert "0123456789" not in text.replace('"geheim-0123456789"', "")


def test_locals_are_shown_to_who_debugs_without_what_is_secret(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masked by their names, as in every line."""
    text = console_traceback(capsys, "DEBUG")

    assert "question = 'Why?'" in text
    assert "api_key = ****" in text


class Clogged(logging.Handler):
    """An output that takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.opened = threading.Event()
        self.reached = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        self.opened.wait(10)
        self.lines.append(record.getMessage())


def test_a_clogged_output_drops_lines_and_says_how_many() -> None:
    """Nobody who logs waits for it."""
    output = Clogged()
    handler = BackgroundHandler(output, max_waiting=3)
    logger = logging.Logger("t")
    logger.addHandler(handler)
    logger.warning("first")
    output.reached.wait(10)
    for number in range(5):
        logger.warning("line %d", number)
    dropped = handler.dropped
    output.opened.set()
    handler.close()

    assert dropped == 2
    assert [line for line in output.lines if "dropped" not in line] == [
        "first", "line 0", "line 1", "line 2",
    ]  # fmt: skip
    assert [line for line in output.lines if "dropped" in line] == [
        "2 log lines dropped: the output was too slow"
    ]


def test_what_was_logged_before_the_end_is_written() -> None:
    """Closing waits for the thread."""
    output = Clogged()
    output.opened.set()
    handler = BackgroundHandler(output)
    for number in range(100):
        handler.handle(logging.LogRecord("t", logging.INFO, "", 0, str(number), None, None))
    handler.close()

    assert output.lines == [str(number) for number in range(100)]


def test_every_line_says_for_whom_the_code_runs(lines: Lines, tmp_path: Path) -> None:
    """The context is asked for each line, and what the line says itself comes first."""
    configure_logging(log_file=tmp_path / "log", context=lambda: {"actor": "/hub", "seq": 1})
    structlog.get_logger("t").info("near", seq=2)
    logging.getLogger("foreign").warning("afar")

    assert [(line["actor"], line["seq"]) for line in lines()] == [("/hub", 2), ("/hub", 1)]

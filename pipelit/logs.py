"""Log lines: structlog over the standard library, correlation ids, redaction, bounded size.

One pipeline for every logger of the process, ours and foreign ones. Secrets are removed at one
boundary, right before a line is rendered. Contract: operations.md §1.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pipelit.log_writer import BackgroundHandler

LogFormat: TypeAlias = Literal["auto", "json", "console"]

MAX_TEXT = 4_000
MAX_ITEMS = 50
MAX_DEPTH = 5
MAX_LINE = 32_000
"""Bounds of one log line: characters per text, items per collection, nesting, characters in all."""

MASK = "****"
_SENSITIVE = re.compile(
    r"key|token|secret|passw|authorization|cookie|credential|prompt|message_body", re.IGNORECASE
)
_PATTERNS = (
    # The query of a URL or of a request path: tokens travel there.
    (re.compile(r"(?<=[\w/])\?[^\s\"'?]+"), "?…"),
    # The user and password of a URL.
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@\"']{1,300}@", re.IGNORECASE), rf"\1{MASK}@"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\b(sk|pk)-[A-Za-z0-9_-]{8,}"), rf"\1-{MASK}"),
)
"""What is replaced in every text. Each is linear in the length of the text."""

_LEVELS = {
    "actor_crashed": logging.ERROR,
    "actor_gave_up": logging.ERROR,
    "supervisor_escalated": logging.ERROR,
    "actor_stuck": logging.WARNING,
    "actor_restarted": logging.WARNING,
    "dead_letter": logging.WARNING,
    "mailbox_high": logging.WARNING,
    "ask_timeout": logging.WARNING,
    "slow_handler": logging.WARNING,
    "fenced": logging.WARNING,
    "lease_lost": logging.WARNING,
    "actor_started": logging.DEBUG,
    "actor_stopped": logging.DEBUG,
}


def configure_logging(
    *,
    level: str = "INFO",
    log_format: LogFormat = "auto",
    log_file: Path | None = None,
    context: Callable[[], Mapping[str, object]] = dict,
) -> None:
    """Send every line of every logger to one place. Called once, by the program's entry.

    Args:
        level: least severe level; changed later by `set_level`.
        log_format: `auto` is `console` on a terminal and `json` elsewhere.
        log_file: None for standard output; re-opened when it was rotated.
        context: returns the correlation ids of the running code; asked for each line.

    Raises:
        OSError: the file cannot be opened.
    """
    output = WatchedFileHandler(log_file) if log_file else logging.StreamHandler(sys.stdout)
    handler = BackgroundHandler(output)
    console = log_format == "console" or (
        log_format == "auto" and log_file is None and sys.stdout.isatty()
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        partial(_add_context, context),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamp,
    ]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _console_line if console else _json_line,
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    set_level(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def set_level(level: str) -> None:
    """Change the least severe level that is logged, at once. Contract: settings.md §1."""
    logging.getLogger().setLevel(level)
    # Libraries that tell of every request and statement speak only when something is wrong.
    for noisy in ("httpx2", "httpcore2", "hypercorn.access", "openai", "anthropic", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def correlation(**ids: object) -> Iterator[None]:
    """Attach ids to every line logged inside the block, in this task and tasks it starts."""
    with structlog.contextvars.bound_contextvars(**ids):
        yield


def log_supervision(record: Mapping[str, Any]) -> None:
    """Write one supervision record as one line. A sink for the actor system.

    Starts and ends of actors are DEBUG, trouble is WARNING, crashes are ERROR.
    """
    fields = {name: value for name, value in record.items() if name != "event"}
    event = str(record.get("event", "supervision"))
    structlog.get_logger("pipelit.supervision").log(
        _LEVELS.get(event, logging.INFO), event, **fields
    )


def redact(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Mask secrets and bound sizes in one line; the last step before rendering.

    Text under a name that sounds like a secret is masked whole, at any depth; in every other text
    query strings, passwords in URLs and bearer tokens are.
    """
    return {name: _clean(name, value, MAX_DEPTH) for name, value in event_dict.items()}


def _clean(name: str, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SENSITIVE.search(name) and value not in ("", (), [], {}):
        return MASK
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth == 0:
        return "…"
    if isinstance(value, Mapping):
        pairs = list(value.items())[:MAX_ITEMS]
        return {str(key): _clean(str(key), item, depth - 1) for key, item in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", item, depth - 1) for item in list(value)[:MAX_ITEMS]]
    return _clean_text(value if isinstance(value, str) else repr(value))


def _clean_text(text: str) -> str:
    # Cut before the patterns run, so that no text costs more than its bound. The end of a long
    # text is kept: that is where a traceback names its error.
    if len(text) > MAX_TEXT:
        text = f"{text[: MAX_TEXT // 4]} … {text[-MAX_TEXT * 3 // 4 :]}"
    return _mask(text)


def _mask(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _stamp(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    # A supervision record brings the time at which it happened.
    event_dict.setdefault("timestamp", round(time.time(), 6))
    return event_dict


def _add_context(
    context: Callable[[], Mapping[str, object]],
    _logger: WrappedLogger,
    _method: str,
    event_dict: EventDict,
) -> EventDict:
    for name, value in context().items():
        event_dict.setdefault(name, value)
    return event_dict


def _json_line(logger: WrappedLogger, method: str, event_dict: EventDict) -> str:
    event_dict = structlog.processors.format_exc_info(logger, method, event_dict)
    event_dict = redact(logger, method, event_dict)
    render = structlog.processors.JSONRenderer(ensure_ascii=False)
    line = str(render(logger, method, event_dict))
    if len(line) <= MAX_LINE:
        return line
    names = ("timestamp", "level", "logger", "event", "seq", "actor", "execution_id")
    kept = {name: event_dict[name] for name in names if name in event_dict}
    return str(render(logger, method, {**kept, "cut_from": len(line)}))


def _console_line(logger: WrappedLogger, method: str, event_dict: EventDict) -> str:
    error = _find_exception(event_dict.pop("exc_info", None))
    event_dict = redact(logger, method, event_dict)
    moment = time.localtime(event_dict["timestamp"])
    event_dict["timestamp"] = time.strftime("%H:%M:%S", moment)
    line = str(structlog.dev.ConsoleRenderer()(logger, method, event_dict))[:MAX_LINE]
    if error is None:
        return line
    # Locals are for whoever debugs: they may hold what is never logged at INFO.
    show_locals = logging.getLogger().isEnabledFor(logging.DEBUG)
    # Imported here because Rich is big and most servers never show a traceback to a person.
    from pipelit.tracebacks import render_traceback

    text = render_traceback(error, show_locals=show_locals, clean=_clean_local)
    return f"{line}\n{text[-MAX_LINE:]}"


def _clean_local(name: str, text: str) -> str:
    return MASK if _SENSITIVE.search(name) else _mask(text)


def _find_exception(given: object) -> BaseException | None:
    """Return the exception that a caller meant by `exc_info`."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1] if isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None

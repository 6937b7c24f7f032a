"""Exceptions as facts: whose they are, two made one, and their text."""

import traceback

import trio

from pipelit.actors.runtime.messages import ErrorInfo

_MAX_MESSAGE_CHARS = 500
_MAX_TRACEBACK_CHARS = 100_000
_MAX_GROUP = 1_000


def split(error: BaseException) -> tuple[Exception | None, BaseException | None]:
    """Separate what an actor did wrong from what came from outside; unwrap groups of one."""
    if isinstance(error, BaseExceptionGroup):
        own, outside = error.split(Exception)
        return (None if own is None else _unwrap(own)), outside
    if isinstance(error, Exception):
        return error, None
    return None, error


def join(first: Exception | None, second: Exception | None) -> Exception | None:
    """Make one error of two, losing neither."""
    if first is None or second is None:
        return first or second
    return ExceptionGroup("crashed, and failed once more in dealing with it", [first, second])


def _unwrap(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def is_cancellation(error: BaseException) -> bool:
    """Say whether *error* is nothing but `Cancelled`."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def describe_error(error: BaseException) -> ErrorInfo:
    """Return *error* as text, with its causes and every member of a group."""
    lines = traceback.TracebackException.from_exception(
        error, max_group_width=_MAX_GROUP, max_group_depth=_MAX_GROUP
    ).format()
    return ErrorInfo(
        type=type(error).__name__,
        message=_text_of(error)[:_MAX_MESSAGE_CHARS],
        traceback="".join(lines)[:_MAX_TRACEBACK_CHARS],
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error without words is still an error, and is recorded
        return "(its text cannot be had)"

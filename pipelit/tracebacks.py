"""Tracebacks for people: Rich's, with the locals of each frame when somebody debugs.

Locals hold secrets and prompts, so every one passes the same cleaning as a log line does, and they
are cut in length, in depth and in number.
"""

from collections.abc import Callable
from io import StringIO
from typing import Any

from rich.console import Console
from rich.pretty import Node
from rich.traceback import Trace, Traceback

MAX_FRAMES = 20
MAX_ITEMS = 10
MAX_STRING = 80
MAX_DEPTH = 3
WIDTH = 100

Clean = Callable[[str, str], str]
"""(name, text) -> the text as it may be shown under that name."""


def render_traceback(error: BaseException, *, show_locals: bool, clean: Clean) -> str:
    """Return the traceback of *error* and its causes as plain text."""
    trace = Traceback.extract(
        type(error),
        error,
        error.__traceback__,
        show_locals=show_locals,
        locals_max_length=MAX_ITEMS,
        locals_max_string=MAX_STRING,
        locals_max_depth=MAX_DEPTH,
        locals_hide_sunder=True,
    )
    _clean_trace(trace, clean)
    console = Console(file=StringIO(), width=WIDTH, color_system=None, legacy_windows=False)
    console.print(Traceback(trace, width=WIDTH, show_locals=show_locals, max_frames=MAX_FRAMES))
    text: Any = console.file
    return clean("", text.getvalue())


def _clean_trace(trace: Trace, clean: Clean) -> None:
    for stack in trace.stacks:
        stack.exc_value = clean("", stack.exc_value)
        for frame in stack.frames:
            for name, node in (frame.locals or {}).items():
                _clean_node(name, node, clean)
        for group in stack.exceptions:
            _clean_trace(group, clean)


def _clean_node(name: str, node: Node, clean: Clean) -> None:
    """Clean a value, or mask all of one whose name says what it is."""
    shown = clean(name, node.value_repr or "…")
    if shown != node.value_repr and node.children is not None:
        node.children, node.open_brace, node.close_brace = None, "", ""
    if node.value_repr or node.children is None:
        node.value_repr = shown
    for child in node.children or ():
        _clean_node(child.key_repr.strip("'\""), child, clean)

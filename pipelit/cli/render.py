"""What a person sees of one execution: events in, lines out. Pure.

The same lines serve a terminal and a pipe; a terminal shows the transient ones in its live area
instead. Readable on 80 columns and without colour: every state is a word.
"""

import textwrap
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec

from pipelit.cli.events import Event

STYLES = {
    "running": "cyan",
    "success": "green",
    "failed": "red",
    "skipped": "bright_black",
    "waiting": "yellow",
    "note": "bright_black",
    "answer": "bold",
}
NAME_WIDTH = 28
INDENT = " " * 11


class Line(msgspec.Struct, frozen=True):
    """One line to show. `transient`: a terminal shows it in its live area instead."""

    text: str
    style: str = ""
    transient: bool = False


class Running(msgspec.Struct):
    """A node that is running now: its name, when it started, and the text it is writing."""

    name: str
    since: float
    depth: int = 0
    text: str = ""


class View:
    """Folds the events of one execution into lines. Owned by one viewer.

    Args:
        width: columns; long texts are wrapped to it.
    """

    def __init__(self, *, width: int = 80) -> None:
        self._width = max(40, width)
        self._started: float | None = None
        self._running: dict[str, Running] = {}
        self.status = "running"
        self.answer: str | None = None

    def feed(self, event: Event) -> list[Line]:
        """Take one event in and return the lines that tell of it."""
        if self._started is None:
            self._started = float(event.get("timestamp", 0.0))
        data = event.get("data", {})
        match event.get("type"):
            case "execution_started":
                return [self._line(event, f"execution {data['execution_id']}", "started")]
            case "node_status" | "child_node_status":
                return self._node(event, data)
            case "chat_delta":
                return self._delta(data)
            case "chat_message":
                return self._message(data)
            case "execution_interrupted":
                question = clean(str(data.get("prompt") or ""))
                return [
                    self._line(event, clean(data["node_id"]), "asks", question, "waiting"),
                    Line(f"{INDENT}answer: pipelit executions resume {data['execution_id']} yes"),
                ]
            case "execution_completed" | "execution_failed" | "execution_cancelled":
                return self._end(event, data)
            case _:
                return []

    def live(self, now: float) -> list[Line]:
        """Return the nodes running at *now* (Unix seconds) and the text being written."""
        if self._started is None:
            return [Line(f"{INDENT}waiting for its turn", STYLES["waiting"])]
        lines = []
        for node in self._running.values():
            seconds = max(0.0, now - node.since)
            name = "  " * node.depth + node.name
            lines.append(Line(f"{INDENT}{name:<{NAME_WIDTH}} running   {seconds:.1f} s", "cyan"))
            lines += [Line(text) for text in self._wrap(node.text)[-4:]]
        return lines

    def _node(self, event: Event, data: Event) -> list[Line]:
        status = str(data["status"])
        if status == "pending":
            return []
        depth = 1 if data.get("parent_node_id") else 0
        key = f"{data.get('child_execution_id', '')}/{data['node_id']}"
        name = "  " * depth + _name(data)
        if status == "running":
            self._running[key] = Running(_name(data), float(event["timestamp"]), depth)
            return [self._line(event, name, "running", style="running", transient=True)]
        self._running.pop(key, None)
        return [self._line(event, name, status, ", ".join(_details(data)), status)]

    def _delta(self, data: Event) -> list[Line]:
        node = self._running.get(f"/{data['node_id']}")
        if node is not None:
            node.text = data["text"] if data["index"] == 0 else node.text + data["text"]
        return []

    def _message(self, data: Event) -> list[Line]:
        node = self._running.get(f"/{data['node_id']}")
        if node is not None:
            node.text = ""
        return [Line(text) for text in self._wrap(data["text"])]

    def _end(self, event: Event, data: Event) -> list[Line]:
        self._running.clear()
        self.status = event["type"].removeprefix("execution_")
        match self.status:
            case "completed":
                self.answer = answer_text(data.get("output"))
                details = ", ".join(_summary(data.get("activity_summary", {})))
                return [self._line(event, "execution", "completed", details, "success")]
            case "failed":
                error = clean(str(data.get("error", "")))
                return [
                    self._line(event, "execution", "failed", error, "failed"),
                    Line(f"{INDENT}again: pipelit executions retry {data['execution_id']}"),
                ]
            case _:
                return [self._line(event, "execution", self.status, style="waiting")]

    def _line(
        self, event: Event, name: str, word: str, details: str = "", style: str = "note",
        *, transient: bool = False,
    ) -> Line:  # fmt: skip
        elapsed = max(0.0, float(event["timestamp"]) - (self._started or 0.0))
        details = " ".join(details.split())
        text = f"{elapsed:>7.2f} s  {name:<{NAME_WIDTH}} {word:<9} {details}".rstrip()
        return Line(text, STYLES.get(style, ""), transient)

    def _wrap(self, text: str) -> list[str]:
        width = self._width - len(INDENT) - 4
        lines = []
        for paragraph in clean(text).splitlines():
            lines += textwrap.wrap(paragraph, width) or [""]
        return [f"{INDENT}  | {line}".rstrip() for line in lines]


def answer_text(output: Any) -> str | None:
    """Return the reply inside a `final_output`: its text, else its JSON, None if there is none."""
    if not isinstance(output, dict):
        return None
    value = output.get("output", output.get("message"))
    if value is None:
        value = output
    if isinstance(value, str):
        return clean(value)
    return clean(msgspec.json.encode(value).decode())


def clean(text: str) -> str:
    """Drop control characters: no text from a model or a server may steer the terminal."""
    return "".join(
        char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf")
    )


def duration(milliseconds: float) -> str:
    """Format a duration for people: `12 ms`, `3.4 s`, `2 min 5 s`."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _name(data: Event) -> str:
    if data.get("is_tool_call"):
        return clean(str(data.get("tool_name") or data["node_id"]))
    label = clean(str(data.get("node_label") or data["node_id"]))
    kind = clean(str(data.get("display_name", "")))
    return f"{label} ({kind})" if kind and kind != label else label


def _details(data: Event) -> Iterator[str]:
    if "duration_ms" in data:
        yield duration(data["duration_ms"])
    usage = data.get("token_usage")
    if usage:
        yield f"{usage['total_tokens']} tokens"
    if data.get("error"):
        yield clean(str(data["error"]))
    if data.get("will_retry"):
        yield f"again in {data.get('retry_in', 0)} s"
    if data.get("reason"):
        yield clean(str(data["reason"]))


def _summary(summary: Event) -> Iterator[str]:
    if not summary:
        return
    yield duration(summary["total_duration_ms"])
    if summary["total_tokens"]:
        yield f"{summary['total_tokens']} tokens"
    if summary["total_cost_usd"]:
        yield f"${summary['total_cost_usd']:.6f}"

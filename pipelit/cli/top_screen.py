"""Draws `pipelit top`: lines of exactly the terminal's size. Pure; colour only adds to the text."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from pipelit.cli.actors import describe, handling, mailbox
from pipelit.cli.logs import tell
from pipelit.cli.render import clean
from pipelit.cli.top_state import Facts, View

MIN_WIDTH, MIN_HEIGHT = 60, 16
KEYS = "q quit  ↑↓ choose  tab section  ⏎ open actor  esc back  c cancel execution"
_RULE = "─"
TROUBLE = ("actor_crashed", "actor_gave_up", "supervisor_escalated", "actor_stuck")


class Row(msgspec.Struct, frozen=True):
    """One line, and how it looks where there is colour."""

    text: str
    style: str = ""


def draw(facts: Facts, view: View, *, width: int, height: int, now: float) -> list[Row]:
    """Return *height* lines of at most *width* characters. *now*: Unix seconds, local clock."""
    if width < MIN_WIDTH or height < MIN_HEIGHT:
        return [Row(f"At least {MIN_WIDTH}×{MIN_HEIGHT} characters, please."[:width])]
    head = [*_head(facts, now)]
    foot = Row(_foot(view), "reverse")
    room = height - len(head) - 1
    opened = None if view.opened is None else _find(facts, view.opened)
    body = _sections(facts, view, room) if opened is None else _one(opened, facts, room)
    rows = [*head, *body][: height - 1]
    rows += [Row("")] * (height - 1 - len(rows))
    return [Row(_cut(row.text, width), row.style) for row in (*rows, foot)]


def _head(facts: Facts, now: float) -> Iterable[Row]:
    info, store = facts.info, facts.info["store"]
    moment = time.strftime("%H:%M:%S", time.localtime(now))
    node = f"{info['node_id'][:8]} epoch {info['epoch']}"
    yield Row(f"pipelit {info['version']}  {node}  up {span(info['uptime_s'])}  {moment}", "bold")
    states = "  ".join(f"{status} {count}" for status, count in info["executions"].items())
    yield Row(f"runs    {states}")
    stuck = info["stuck_executions"]
    yield Row(
        f"store   queue {store['queue_depth']}  batch {store['batch_p50']}  "
        f"commit p99 {store['commit_ms_p99']:.1f} ms  commits {store['commits']}  "
        f"loop p99 {info['loop_lag_ms_p99']:.1f} ms"
    )
    kinds = "  ".join(
        f"{kind} {count}"
        for kind, count in sorted(info["actors"].items(), key=lambda pair: -pair[1])
        if count > 1 or kind in ("execution", "chat", "schedule", "socket")
    )
    yield Row(f"actors  {sum(info['actors'].values())}: {kinds}")
    text = f"trouble restarts {facts.restarts}  stuck executions {stuck}"
    yield Row(text, "bold red" if stuck else "")


def _sections(facts: Facts, view: View, room: int) -> list[Row]:
    records = max(3, room // 3)
    tables = room - records - 3  # three headings
    first = (tables + 1) // 2
    rows = [_heading("Longest running", active=view.section == "executions")]
    rows += _table(
        [_execution(one, facts) for one in facts.executions],
        first,
        view.row if view.section == "executions" else None,
    )
    rows.append(_heading("Actors", active=view.section == "actors"))
    rows += _table(
        [_actor(one) for one in facts.actors],
        tables - first,
        view.row if view.section == "actors" else None,
    )
    rows.append(_heading("Last records"))
    return rows + _records(facts.records, records)


def _one(actor: Any, facts: Facts, room: int) -> list[Row]:
    rows = [_heading(actor["path"], active=True)]
    rows += [
        Row(f"  {name:<14} {value}")
        for name, value in describe(actor).items()
        if value not in (None, "")
    ][: room - 5]
    rows.append(_heading("Its records"))
    mine = [one for one in facts.records if one["actor"].startswith(actor["path"])]
    return rows + _records(mine, max(1, room - len(rows)))


def _records(records: Sequence[Any], room: int) -> list[Row]:
    shown = records[-room:]
    rows = [Row(f"  {tell(one)}", "red" if one["event"] in TROUBLE else "") for one in shown]
    return rows + [Row("")] * (room - len(rows))


def _heading(text: str, *, active: bool = False) -> Row:
    return Row(f"{_RULE * 2} {text} {_RULE * 500}", "bold cyan" if active else "cyan")


def _table(lines: Sequence[str], room: int, chosen: int | None) -> list[Row]:
    start = 0 if chosen is None else max(0, chosen - room + 1)
    rows = [
        Row(f"> {line}" if number == chosen else f"  {line}", "bold" if number == chosen else "")
        for number, line in enumerate(lines[start : start + room], start=start)
    ]
    return rows + [Row("")] * (room - len(rows))


def _execution(one: Any, facts: Facts) -> str:
    age = span(_server_now(facts) - _seconds(one["started_at"])) if one["started_at"] else "-"
    return f"{one['execution_id']}  {age:>8}  {one['status']:<8}  {one['workflow_slug']}"


def _actor(one: Any) -> str:
    path = one["path"] if len(one["path"]) <= 34 else f"{one['path'][:33]}…"
    restarts = f"restarts {one['restarts']}"
    return f"{path:<34}  {one['state']:<10}  {restarts:<11}  {mailbox(one):>8}  {handling(one)}"


def _find(facts: Facts, path: str) -> Any:
    return next((one for one in facts.actors if one["path"] == path), None)


def _foot(view: View) -> str:
    if view.asks is not None:
        return f" Cancel {view.asks}? y/n"
    return f" {view.notice}" if view.notice else f" {KEYS}"


def _server_now(facts: Facts) -> float:
    return _seconds(facts.info["started_at"]) + float(facts.info["uptime_s"])


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(f"{instant}+00:00").timestamp()


def span(seconds: float) -> str:
    """Write a duration in at most eight characters: `7s`, `4m07s`, `3h05m`, `12d04h`."""
    whole = max(0, int(seconds))
    days, hours = divmod(whole, 86_400)[0], whole % 86_400 // 3600
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{whole % 3600 // 60:02}m"
    if whole >= 60:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole}s"


def _cut(text: str, width: int) -> str:
    text = clean(text).replace("\n", " ").replace("\t", " ")
    if len(text) <= width or text.endswith(_RULE):
        return text[:width]
    return f"{text[: width - 1]}…"

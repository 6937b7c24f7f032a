"""What `pipelit top` knows, and what its keys do. Pure: no terminal, no network."""

from enum import Enum
from typing import Any, Literal

import msgspec

Section = Literal["executions", "actors"]


class Key(Enum):
    """A key that means something."""

    UP = "up"
    DOWN = "down"
    TAB = "tab"
    ENTER = "enter"
    ESCAPE = "escape"
    CANCEL = "c"
    YES = "y"
    QUIT = "q"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the server said last."""

    info: Any
    executions: tuple[Any, ...]
    """Those that run, the one that has run for longest first."""
    actors: tuple[Any, ...]
    """Those worth a look, the most troubled first."""
    restarts: int
    records: tuple[Any, ...]
    """Supervision records, the newest last."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the person looks at."""

    section: Section = "executions"
    row: int = 0
    opened: str | None = None
    """Path of the actor that is shown alone."""
    asks: str | None = None
    """Execution that is cancelled if the answer is yes."""
    notice: str = ""


class Cancel(msgspec.Struct, frozen=True):
    """Cancel an execution."""

    execution_id: str


class Quit(msgspec.Struct, frozen=True):
    """Leave."""


Action = Cancel | Quit | None


def press(view: View, key: Key, facts: Facts) -> tuple[View, Action]:
    """Return what a key leads to."""
    change = msgspec.structs.replace
    if view.asks is not None:
        if key is Key.YES:
            return change(view, asks=None, notice=f"Cancelling {view.asks} …"), Cancel(view.asks)
        return change(view, asks=None, notice="Not cancelled."), None
    view = change(view, notice="")
    match key:
        case Key.QUIT:
            return view, Quit()
        case Key.ESCAPE:
            return change(view, opened=None), None
        case Key.TAB:
            other: Section = "actors" if view.section == "executions" else "executions"
            return change(view, section=other, row=0), None
        case Key.UP | Key.DOWN:
            step = 1 if key is Key.DOWN else -1
            return clamp(change(view, row=view.row + step), facts), None
        case Key.ENTER:
            return change(view, opened=_chosen_path(view, facts)), None
        case Key.CANCEL:
            return change(view, asks=_chosen_execution(view, facts)), None
    return view, None


def clamp(view: View, facts: Facts) -> View:
    """Return *view* with its chosen row inside what there is."""
    row = max(0, min(view.row, len(_rows(view, facts)) - 1))
    return msgspec.structs.replace(view, row=row)


def _rows(view: View, facts: Facts) -> tuple[Any, ...]:
    return facts.executions if view.section == "executions" else facts.actors


def _chosen(view: View, facts: Facts) -> Any:
    rows = _rows(view, facts)
    return rows[view.row] if view.row < len(rows) else None


def _chosen_path(view: View, facts: Facts) -> str | None:
    chosen = _chosen(view, facts)
    if chosen is None:
        return None
    if view.section == "executions":
        return f"/executions/{chosen['execution_id']}"
    return str(chosen["path"])


def _chosen_execution(view: View, facts: Facts) -> str | None:
    path = view.opened or _chosen_path(view, facts) or ""
    return path.removeprefix("/executions/") if path.startswith("/executions/") else None


def rank_actors(actors: list[Any]) -> tuple[Any, ...]:
    """Return the actors worth a look, the most troubled first."""

    def trouble(actor: Any) -> tuple[Any, ...]:
        return (
            actor["state"] != "running",
            actor["restarts"],
            actor["mailbox_depth"],
            actor["handling_ms"] or 0,
        )

    return tuple(sorted(actors, key=trouble, reverse=True))

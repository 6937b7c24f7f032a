"""The tree as it is now: sync, consistent, without messages or locks."""

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec
import trio

from pipelit.actors.runtime.cell import ActorCell
from pipelit.actors.runtime.lifecycle import Cell, State
from pipelit.actors.runtime.mail_cell import MailCell
from pipelit.actors.runtime.messages import ErrorInfo
from pipelit.actors.runtime.parent import ParentCell
from pipelit.actors.runtime.records import Detail


class ActorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One actor, supervisor, family or attached task. Contract: operations.md §2."""

    path: str
    kind: str
    parent: str | None
    state: State
    incarnation: int
    restarts: int
    started_at: datetime | None
    """When the running incarnation came up; aware UTC."""
    mailbox_depth: int
    mailbox_capacity: int
    handling: str | None
    handling_ms: int | None
    messages_handled: int
    last_error: ErrorInfo | None
    detail: Detail
    children: "tuple[ActorInfo, ...]" = ()

    def walk(self) -> "Iterator[ActorInfo]":
        """Yield this one and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()


class KindCount(msgspec.Struct, frozen=True):
    """The actors of one kind. `deepest`: messages in the fullest of their mailboxes."""

    actors: int
    deepest: int


def count_kinds(cells: Iterable[Cell]) -> dict[str, KindCount]:
    """Count *cells* by kind, cheaply: no description is made."""
    counts: dict[str, KindCount] = {}
    for cell in cells:
        depth = cell.mail.depth if isinstance(cell, MailCell) else 0
        before = counts.get(cell.kind)
        counts[cell.kind] = (
            KindCount(1, depth)
            if before is None
            else KindCount(before.actors + 1, max(before.deepest, depth))
        )
    return counts


def list_actors(
    root: Cell, *, kind: str | None, offset: int, limit: int
) -> tuple[list[ActorInfo], int]:
    """Describe a page of the tree in depth-first order, and count all that match."""
    page: list[ActorInfo] = []
    total, left = 0, [root]
    while left:
        cell = left.pop()
        if isinstance(cell, ParentCell):
            left.extend(reversed(cell.children.values()))
        if kind in (None, cell.kind):
            if offset <= total < offset + limit:
                page.append(take_snapshot(cell, depth=0))
            total += 1
    return page, total


def take_snapshot(cell: Cell, depth: int | None = None) -> ActorInfo:
    """Describe *cell* and what is below it, *depth* levels of it, or all."""
    handling = cell.handling if isinstance(cell, ActorCell) else None
    since = cell.handling_since if isinstance(cell, ActorCell) else 0.0
    children = cell.children.values() if isinstance(cell, ParentCell) and depth != 0 else ()
    below = None if depth is None else depth - 1
    return ActorInfo(
        path=cell.path,
        kind=cell.kind,
        parent=cell.source.parent,
        state=cell.state,
        incarnation=cell.incarnation,
        restarts=cell.restarts,
        started_at=cell.started_at,
        mailbox_depth=cell.mail.depth if isinstance(cell, MailCell) else 0,
        mailbox_capacity=cell.mail.capacity if isinstance(cell, MailCell) else 0,
        handling=handling,
        handling_ms=None if handling is None else round((trio.current_time() - since) * 1000),
        messages_handled=cell.handled,
        last_error=cell.last_error,
        detail=cell.detail,
        children=tuple(take_snapshot(child, below) for child in children),
    )

"""The tree as it is now: sync, consistent, without messages or locks."""

from collections.abc import Iterator
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


def take_snapshot(cell: Cell) -> ActorInfo:
    """Describe *cell* and everything below it."""
    handling = cell.handling if isinstance(cell, ActorCell) else None
    since = cell.handling_since if isinstance(cell, ActorCell) else 0.0
    children = cell.children.values() if isinstance(cell, ParentCell) else ()
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
        children=tuple(map(take_snapshot, children)),
    )

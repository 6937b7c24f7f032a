"""Supervision records for those who watch: the channel `system:actors`, and counters.

Sinks of the actor system, not actors: they hear of a crashed hub too. Contract: operations.md §1,
websocket.md "Supervision".
"""

from collections.abc import Callable
from typing import Any

import msgspec

from pipelit.actors.hub import Board, envelope
from pipelit.actors.runtime import Record

CHANNEL = "system:actors"


def show_record(record: Record) -> dict[str, Any]:
    """Return a record as REST and the log show it."""
    shown: dict[str, Any] = msgspec.to_builtins(record)
    return shown


def broadcast_to(board: Board) -> Callable[[Record], None]:
    """Return a sink that delivers each record to the administrators who read the channel."""

    def sink(record: Record) -> None:
        admins = [one for one in board.readers(CHANNEL) if one.reader.is_admin]
        if not admins:
            return
        data = show_record(record)
        if data["error"] is not None:
            del data["error"]["traceback"]  # it may quote what sockets must not carry
        copy = envelope(CHANNEL, "supervision", record.timestamp, data)
        for admin in admins:
            admin.deliver(copy)

    return sink

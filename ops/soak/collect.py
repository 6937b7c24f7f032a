"""Reads a server at the end of a run: everything over the API, and what was left lying about."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ops.soak.clients import Caller
from ops.soak.history import TERMINAL, Epic, Job, Run
from ops.soak.world import Server, running_executions

PAGE = 200
_LEFT_OVER = {
    "an ended execution has an owner": (
        "SELECT id FROM executions WHERE owner IS NOT NULL"
        " AND status IN ('completed', 'failed', 'cancelled')"
    ),
    "a question of an ended execution is open": (
        "SELECT task_id FROM pending_tasks JOIN executions ON executions.id = execution_id"
        " WHERE answered_at IS NULL AND status IN ('completed', 'failed', 'cancelled')"
    ),
    "an ended execution has a reservation": "SELECT execution_id FROM reservations",
    "a tick of a schedule has no outcome": (
        "SELECT schedule_id FROM schedule_fires WHERE outcome IS NULL"
    ),
    "the database is damaged": "SELECT * FROM pragma_integrity_check WHERE integrity_check != 'ok'",
    "a row refers to nothing": "SELECT * FROM pragma_foreign_key_check",
}


async def list_ids(caller: Caller, *, only: str = "") -> list[str]:
    """Return the ids of all executions, or of those with a status."""
    ids: list[str] = []
    while True:
        query = f"limit={PAGE}&offset={len(ids)}" + (f"&status={only}" if only else "")
        page = (await caller.surely("GET", f"/executions/?{query}")).json
        ids += [execution["execution_id"] for execution in page["items"]]
        if len(ids) >= page["total"] or not page["items"]:
            return ids


async def is_settled(caller: Caller) -> bool:
    """Tell whether every execution has ended."""
    total = (await caller.surely("GET", "/executions/?limit=0")).json["total"]
    ended = 0
    for status in TERMINAL:
        page = await caller.surely("GET", f"/executions/?limit=0&status={status}")
        ended += page.json["total"]
    return bool(ended == total)


async def read_runs(caller: Caller) -> tuple[Run, ...]:
    """Return all executions with their logs and stored events."""
    runs = []
    for execution_id in await list_ids(caller):
        detail = (await caller.surely("GET", f"/executions/{execution_id}/")).json
        events: list[dict[str, Any]] = []
        while True:
            since = events[-1]["seq"] if events else 0
            path = f"/executions/{execution_id}/events/?limit=1000&since={since}"
            page = (await caller.surely("GET", path)).json
            events += page["items"]
            if not page["items"]:
                break
        runs.append(Run(detail=detail, events=tuple(events)))
    return tuple(runs)


async def read_jobs(caller: Caller, wall: str) -> tuple[Job, ...]:
    """Return all scheduled jobs."""
    page = (await caller.surely("GET", f"/schedules/?limit={PAGE}")).json
    return tuple(Job(detail=detail, wall=wall) for detail in page["items"])


async def read_epics(caller: Caller) -> tuple[Epic, ...]:
    """Return all epics."""
    page = (await caller.surely("GET", f"/epics/?limit={PAGE}")).json
    return tuple(Epic(detail=detail) for detail in page["items"])


def find_leaks(server: Server) -> list[str]:
    """Say what is left although nothing goes on any more. The server is up."""
    found = []
    system = server.system
    if system is not None:
        found += [f"the actor of {one} is left" for one in running_executions(system)]
    if server.outside.life.children:
        found.append(f"{server.outside.life.children} child processes are left")
    if server.door.connections:
        found.append(f"connections are left: {server.door.connections}")
    return found


def find_left_rows(database: Path) -> list[str]:
    """Say which rows are left that only a run in progress has."""
    found = []
    with closing(sqlite3.connect(database)) as connection:
        for sentence, query in _LEFT_OVER.items():
            rows = connection.execute(query).fetchmany(3)
            found += [f"{sentence}: {row[0]}" for row in rows]
    return found

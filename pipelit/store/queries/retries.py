"""What the retry of an execution needs of the one before it. Contract: engine.md §10.8."""

from typing import Any

import msgspec
from sqlalchemy import Connection, select

from pipelit.store.queries.journal import list_records
from pipelit.store.schema import executions


class Past(msgspec.Struct, frozen=True):
    """A run that has ended: its graph and its journal, as stored."""

    snapshot: Any
    records: tuple[Any, ...]


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """What a retry has in common with the execution before it."""

    workflow_id: int
    trigger_node_id: str | None
    user_id: int | None
    thread_id: str
    serial: bool
    status: str
    error_code: str | None
    source: str
    trigger_payload: Any
    trigger: Any
    user_context: Any
    snapshot: Any
    limit_seconds: int


def find_past(conn: Connection, execution_id: str) -> Past | None:
    """Return the run of an execution; None if it never started, or is deleted."""
    snapshot = conn.scalar(select(executions.c.snapshot).where(executions.c.id == execution_id))
    return None if snapshot is None else Past(snapshot, list_records(conn, execution_id))


def find_original(conn: Connection, execution_id: str) -> Original | None:
    """Return an execution to be tried again, if it exists."""
    columns = (executions.c[name] for name in Original.__struct_fields__)
    statement = select(*columns).where(executions.c.id == execution_id)
    row = conn.execute(statement).mappings().one_or_none()
    return None if row is None else Original(**row)

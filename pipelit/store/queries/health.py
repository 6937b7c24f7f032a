"""What a health report asks the database. Contract: node-types.md §8.11."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, case, func, select, text, type_coerce

from pipelit.store.queries.servers import list_servers
from pipelit.store.schema import executions, schedules, users, workflows

LISTED = 50
"""Most rows of a kind that a report names; its counts are complete."""

_PATIENCE_SECONDS = 900
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_ACTIVE = ("pending", "running", "interrupted")

Owners = Sequence[int] | None
"""The workflow owners whose executions and jobs count; None: everybody's."""


class WorkflowOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Who owns a workflow."""

    id: int
    username: str
    role: Literal["admin", "normal"]
    kind: str
    created_by_id: int | None


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A live server and how many executions it runs."""

    name: str
    running_executions: int


class Stuck(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that is running for longer than it should."""

    execution_id: str
    workflow_id: int
    started_at: datetime


class SickJob(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduled job that is dead or has failed."""

    id: str
    name: str
    status: str
    error_count: int
    last_error: str


def find_workflow_owner(conn: Connection, workflow_id: int) -> WorkflowOwner | None:
    """Return the owner of a workflow."""
    columns = (users.c[name] for name in WorkflowOwner.__struct_fields__)
    statement = (
        select(*columns)
        .join(workflows, workflows.c.owner_id == users.c.id)
        .where(workflows.c.id == workflow_id)
    )
    row = conn.execute(statement).mappings().first()
    return None if row is None else WorkflowOwner(**row)


def database_bytes(conn: Connection) -> int:
    """Return the size of the database."""
    if conn.dialect.name == "sqlite":
        statement = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    else:
        statement = "SELECT pg_database_size(current_database())"
    return int(conn.scalar(text(statement)) or 0)


def live_workers(conn: Connection, owners: Owners) -> Sequence[Worker]:
    """Return the servers that run executions, the youngest first."""
    key = (executions.c.owner, executions.c.epoch)
    counted = (
        select(*key, func.count())
        .where(executions.c.status == "running", *_of(owners))
        .group_by(*key)
    )
    running = {(owner, epoch): count for owner, epoch, count in conn.execute(counted)}
    return [
        Worker(
            name=server.node_id,
            running_executions=running.get((server.node_id, server.epoch), 0),
        )
        for server in list_servers(conn)
        if server.live
    ]


def count_active(conn: Connection, owners: Owners) -> Mapping[str, int]:
    """Return how many executions have each status that is not terminal."""
    statement = (
        select(executions.c.status, func.count().label("total"))
        .where(executions.c.status.in_(_ACTIVE), *_of(owners))
        .group_by(executions.c.status)
    )
    found = {row.status: row.total for row in conn.execute(statement)}
    return {status: found.get(status, 0) for status in _ACTIVE}


def find_stuck(conn: Connection, owners: Owners, *, now: datetime) -> tuple[int, Sequence[Stuck]]:
    """Count the executions active for over 15 minutes and over their limit; name the oldest."""
    now_us = (now - _EPOCH) // timedelta(microseconds=1)
    active_us = executions.c.active_us + now_us - type_coerce(executions.c.resumed_at, BigInteger)
    limit = executions.c.limit_seconds
    patience = case((limit > _PATIENCE_SECONDS, limit), else_=_PATIENCE_SECONDS)
    wanted = (
        executions.c.status == "running",
        executions.c.resumed_at.is_not(None),
        executions.c.started_at.is_not(None),
        active_us > patience * 1_000_000,
        *_of(owners),
    )
    total = conn.scalar(select(func.count()).select_from(executions).where(*wanted)) or 0
    columns = (executions.c.id, executions.c.workflow_id, executions.c.started_at)
    oldest = select(*columns).where(*wanted).order_by(executions.c.started_at).limit(LISTED)
    return total, [
        Stuck(execution_id=id_, workflow_id=workflow_id, started_at=started_at)
        for id_, workflow_id, started_at in conn.execute(oldest)
    ]


def count_failures(conn: Connection, owners: Owners, *, since: datetime) -> Mapping[str, int]:
    """Return how many executions failed with each code, the commonest first."""
    code = func.coalesce(executions.c.error_code, "unknown").label("code")
    statement = (
        select(code, func.count().label("total"))
        .where(executions.c.status == "failed", executions.c.completed_at >= since, *_of(owners))
        .group_by(code)
        .order_by(func.count().desc(), code)
    )
    return {row.code: row.total for row in conn.execute(statement)}


def count_sick_jobs(conn: Connection, owners: Owners) -> tuple[int, int, Sequence[SickJob]]:
    """Return how many jobs are dead, how many have failed, and the worst of both."""
    dead, failing = schedules.c.status == "dead", schedules.c.error_count > 0
    mine = [] if owners is None else [_owned(schedules.c.workflow_id, owners)]

    def count(which: ColumnElement[bool]) -> int:
        return conn.scalar(select(func.count()).select_from(schedules).where(which, *mine)) or 0

    columns = [schedules.c[name] for name in SickJob.__struct_fields__]
    worst = (
        select(*columns)
        .where(dead | failing, *mine)
        .order_by(dead.desc(), schedules.c.error_count.desc(), schedules.c.id)
        .limit(LISTED)
    )
    jobs = [SickJob(**row) for row in conn.execute(worst).mappings()]
    return count(dead), count(failing), jobs


def _of(owners: Owners) -> list[ColumnElement[bool]]:
    return [] if owners is None else [_owned(executions.c.workflow_id, owners)]


def _owned(workflow_id: ColumnElement[int], owners: Sequence[int]) -> ColumnElement[bool]:
    return workflow_id.in_(select(workflows.c.id).where(workflows.c.owner_id.in_(owners)))

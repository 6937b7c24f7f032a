"""Executions as lists and objects: what people read, and how an execution is created.

How a running execution writes is in `journal`. Contract: executions.md, README.md §3, §5.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
)

from pipelit.store.queries import dispatches, threads
from pipelit.store.queries.tasks import relink_tasks
from pipelit.store.schema import (
    execution_events,
    execution_logs,
    executions,
    idempotency_keys,
    workflows,
)

TERMINAL = ("completed", "failed", "cancelled")
KEY_LIFE = timedelta(hours=24)
"""How long an Idempotency-Key counts after its first use."""


class NewExecution(msgspec.Struct, frozen=True, kw_only=True):
    """An execution to store as `pending`. `serial`: runs of its thread go one at a time."""

    id: str
    workflow_id: int
    trigger_node_id: str | None
    user_id: int
    thread_id: str
    serial: bool
    source: str
    trigger_payload: dict[str, Any]
    trigger: dict[str, Any]
    limit_seconds: int
    created_at: datetime
    schedule_id: str | None = None
    user_context: dict[str, Any] | None = None
    retry_of: str | None = None
    retry_from: str | None = None
    """The node from which a retry runs again; None: what did not end well."""
    snapshot: Any = None
    """The stored graph to run; None: the workflow's as it is at the start."""
    parent_execution_id: str | None = None
    parent_node_id: str | None = None
    root_execution_id: str | None = None
    depth: int = 0
    dedupe_key: str | None = None


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """A request's `Idempotency-Key` with a fingerprint of the request and its first response."""

    key: str
    fingerprint: str
    status: int
    body: dict[str, Any]


class Replay(msgspec.Struct, frozen=True):
    """The stored first response of a repeated request."""

    status: int
    body: dict[str, Any]


class KeyReused(Exception):
    """The Idempotency-Key belongs to a different request."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as its list shows it, with what decides who may see it."""

    id: str
    workflow_id: int
    workflow_slug: str
    workflow_owner_id: int
    user_id: int | None
    thread_id: str
    serial: bool
    status: str
    error_message: str
    error_code: str | None
    started_at: datetime | None
    completed_at: datetime | None
    total_tokens: int
    cost_micros: int
    llm_calls: int
    retry_of: str | None
    last_seq: int


class ExecutionDetail(Execution, frozen=True, kw_only=True):
    """The detail: results, payload and logs."""

    final_output: Any
    trigger_payload: Any
    logs: tuple[dict[str, Any], ...]


class StoredEvent(msgspec.Struct, frozen=True):
    """A numbered event of an execution; `timestamp` is Unix seconds."""

    seq: int
    type: str
    timestamp: float
    data: dict[str, Any]


_OTHERS = executions.alias()
_create = insert(executions)
_create_in_file = _create.values(
    created_seq=select(func.coalesce(func.max(_OTHERS.c.created_seq), 0) + 1).scalar_subquery()
)
"""SQLite has one writer. On PostgreSQL several servers create at once, and a sequence counts."""

_COLUMNS = (
    executions.c.id,
    executions.c.workflow_id,
    workflows.c.slug.label("workflow_slug"),
    workflows.c.owner_id.label("workflow_owner_id"),
    executions.c.user_id,
    executions.c.thread_id,
    executions.c.serial,
    executions.c.status,
    executions.c.error_message,
    executions.c.error_code,
    executions.c.started_at,
    executions.c.completed_at,
    executions.c.total_tokens,
    executions.c.cost_micros,
    executions.c.llm_calls,
    executions.c.retry_of,
    executions.c.last_seq,
)


def create(
    conn: Connection,
    new: NewExecution,
    *,
    transcript: threads.ThreadAppend | None = None,
    idempotency: Idempotency | None = None,
) -> Replay | None:
    """Store a pending execution with its transcript message and idempotency key.

    Returns:
        The first response when this request was made before: then nothing is stored.

    Raises:
        KeyReused: the key was used with a different request.
    """
    if idempotency is not None:
        replay = _find_replay(conn, new, idempotency)
        if replay is not None:
            return replay
        _store_key(conn, new, idempotency)
    row = {"status": "pending", "last_activity_at": new.created_at}
    statement = _create_in_file if conn.dialect.name == "sqlite" else _create
    conn.execute(statement, msgspec.structs.asdict(new) | row)
    if transcript is not None:
        threads.append(conn, transcript)
    if new.retry_of is not None and relink_tasks(conn, new.retry_of, new.id, now=new.created_at):
        dispatches.add(conn, new.id, (dispatches.LINK,), due_at=new.created_at)
    return None


def _find_replay(conn: Connection, new: NewExecution, wanted: Idempotency) -> Replay | None:
    row = find_key(conn, new.user_id, new.workflow_id, wanted.key, now=new.created_at)
    if row is None:
        return None
    if row.fingerprint != wanted.fingerprint:
        raise KeyReused(wanted.key)
    return Replay(row.status, row.body)


def _store_key(conn: Connection, new: NewExecution, used: Idempotency) -> None:
    expired = delete(idempotency_keys).where(*_is_key(new.user_id, new.workflow_id, used.key))
    conn.execute(expired)
    conn.execute(
        insert(idempotency_keys).values(
            user_id=new.user_id,
            workflow_id=new.workflow_id,
            execution_id=new.id,
            created_at=new.created_at,
            **msgspec.structs.asdict(used),
        )
    )


def find_key(
    conn: Connection, user_id: int, workflow_id: int, key: str, *, now: datetime
) -> Idempotency | None:
    """Return the request first made with an Idempotency-Key within the last 24 h, if any."""
    columns = tuple(idempotency_keys.c[name] for name in Idempotency.__struct_fields__)
    row = (
        conn.execute(
            select(*columns).where(
                *_is_key(user_id, workflow_id, key), idempotency_keys.c.created_at > now - KEY_LIFE
            )
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else Idempotency(**row)


def _is_key(user_id: int, workflow_id: int, key: str) -> tuple[ColumnElement[bool], ...]:
    return (
        idempotency_keys.c.user_id == user_id,
        idempotency_keys.c.workflow_id == workflow_id,
        idempotency_keys.c.key == key,
    )


def find(conn: Connection, execution_id: str) -> Execution | None:
    """Return one execution, if it exists."""
    row = conn.execute(_select().where(executions.c.id == execution_id)).mappings().one_or_none()
    return None if row is None else Execution(**row)


def find_result(conn: Connection, execution_id: str) -> tuple[Execution | None, Any]:
    """Return one execution, if it exists, and its final output, without reading its logs."""
    output = select(executions.c.final_output).where(executions.c.id == execution_id)
    return find(conn, execution_id), conn.scalar(output)


def find_detail(conn: Connection, execution_id: str) -> ExecutionDetail | None:
    """Return one execution with its results and logs, if it exists."""
    row = (
        conn.execute(
            _select(executions.c.final_output, executions.c.trigger_payload).where(
                executions.c.id == execution_id
            )
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return None
    return ExecutionDetail(**row, logs=tuple(_logs(conn, execution_id)))


def _logs(conn: Connection, execution_id: str) -> list[dict[str, Any]]:
    rows = conn.execute(
        select(execution_logs)
        .where(execution_logs.c.execution_id == execution_id)
        .order_by(execution_logs.c.id)
    ).mappings()
    return [{k: v for k, v in row.items() if k != "execution_id"} for row in rows]


_LISTED = (executions.c.listed_at.desc(), executions.c.created_seq.desc())
"""The order of lists, newest start first; indexes of the table have it."""


def list_page(
    conn: Connection,
    users: Collection[int] | None,
    *,
    workflow_slug: str | None,
    status: str | None,
    limit: int,
    offset: int,
) -> tuple[list[Execution], int]:
    """Return a page of executions, newest start first, and how many match in all.

    Args:
        users: whose workflows' and own executions count; None: everybody's.
    """
    wanted = [] if users is None else [_concerns(users)]
    if workflow_slug is not None:
        named = select(workflows.c.id).where(workflows.c.slug == workflow_slug)
        ids = list(conn.scalars(named))
        # One id, not a list of one: only then the index has the order of the page.
        workflow_id = executions.c.workflow_id
        wanted.append(workflow_id == ids[0] if len(ids) == 1 else workflow_id.in_(ids))
    if status is not None:
        wanted.append(executions.c.status == status)
    total = conn.scalar(select(func.count()).select_from(executions).where(*wanted)) or 0
    page = select(executions.c.id).where(*wanted).order_by(*_LISTED).limit(limit).offset(offset)
    rows = conn.execute(
        _select().where(executions.c.id.in_(page.scalar_subquery())).order_by(*_LISTED)
    ).mappings()
    return [Execution(**row) for row in rows], total


def list_visible(
    conn: Connection, execution_ids: Collection[str], users: Collection[int] | None
) -> list[Execution]:
    """Return those of the named executions that exist and that these users may see."""
    rows = conn.execute(_select().where(executions.c.id.in_(execution_ids), *_seen_by(users)))
    return [Execution(**row) for row in rows.mappings()]


def delete_ended(conn: Connection, execution_ids: Collection[str]) -> None:
    """Delete executions that have ended, with everything that is only theirs."""
    conn.execute(
        delete(executions).where(
            executions.c.id.in_(execution_ids), executions.c.status.in_(TERMINAL)
        )
    )


def events_after(conn: Connection, execution_id: str, seq: int, *, limit: int) -> list[StoredEvent]:
    """Return the stored events after *seq*, oldest first."""
    rows = conn.execute(
        select(
            execution_events.c.seq,
            execution_events.c.type,
            execution_events.c.timestamp,
            execution_events.c.data,
        )
        .where(execution_events.c.execution_id == execution_id, execution_events.c.seq > seq)
        .order_by(execution_events.c.seq)
        .limit(limit)
    )
    return [StoredEvent(row.seq, row.type, row.timestamp, row.data) for row in rows]


def active_of_workflow(conn: Connection, workflow_id: int) -> list[str]:
    """Return the executions of a workflow that have not ended, oldest first."""
    return list(
        conn.scalars(
            select(executions.c.id)
            .where(executions.c.workflow_id == workflow_id, executions.c.status.not_in(TERMINAL))
            .order_by(executions.c.created_seq)
        )
    )


def workflow_audience(
    conn: Connection, slug: str, workflow_id: int | None
) -> tuple[int, bool] | None:
    """Return the owner of a workflow and whether it is public.

    By id when one is given, deleted workflows included; else the living one of that slug.
    """
    by_slug = and_(workflows.c.slug == slug, workflows.c.deleted_at.is_(None))
    wanted = by_slug if workflow_id is None else workflows.c.id == workflow_id
    row = conn.execute(
        select(workflows.c.owner_id, workflows.c.is_public).where(wanted)
    ).one_or_none()
    return None if row is None else (row.owner_id, row.is_public)


def _concerns(users: Collection[int]) -> ColumnElement[bool]:
    """Tell whether an execution is one of these users', or of a workflow of theirs."""
    theirs = select(workflows.c.id).where(workflows.c.owner_id.in_(users))
    return or_(executions.c.user_id.in_(users), executions.c.workflow_id.in_(theirs))


def _seen_by(users: Collection[int] | None) -> list[ColumnElement[bool]]:
    if users is None:
        return []
    return [or_(workflows.c.owner_id.in_(users), executions.c.user_id.in_(users))]


def _joined(*columns: Any) -> Select[Any]:
    return select(*columns).select_from(
        executions.join(workflows, workflows.c.id == executions.c.workflow_id)
    )


def _select(*more: ColumnElement[Any]) -> Select[Any]:
    return _joined(*_COLUMNS, *more)

"""How a running execution writes: one unit per step, fenced by owner and epoch.

Contract: engine.md §8.2, §9.4, §10.
"""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from pipelit.store.queries import (
    budgets,
    dispatches,
    episodes,
    failures,
    roll_up,
    sessions,
    threads,
)
from pipelit.store.queries.executions import TERMINAL, StoredEvent
from pipelit.store.queries.fencing import Fenced
from pipelit.store.queries.questions import Question, any_answered, forget_open, open_all
from pipelit.store.schema import (
    execution_events,
    execution_logs,
    executions,
    journal,
    run_checkpoints,
    tasks,
    workflows,
)


class Owner(msgspec.Struct, frozen=True):
    """Who may write for an execution: a server and its start."""

    node_id: str
    epoch: int


class JournalRow(msgspec.Struct, frozen=True):
    """A journal record with its place in the fold. `record`: the stored form."""

    position: int
    node_id: str
    iteration: str
    kind: str
    record: Any


class LogRow(msgspec.Struct, frozen=True, kw_only=True):
    """A log row to add."""

    node_id: str
    status: str
    input: Any = None
    output: Any = None
    error: str = ""
    error_code: str | None = None
    metadata: Any = None
    duration_ms: int = 0
    timestamp: datetime


class Checkpoint(msgspec.Struct, frozen=True):
    """Progress of an agent's run."""

    node_id: str
    iteration: str
    state: Any


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The execution's own totals so far, absolute."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros: int = 0
    llm_calls: int = 0
    tool_invocations: int = 0


class EventDraft(msgspec.Struct, frozen=True):
    """An event before it has its number."""

    type: str
    data: dict[str, Any]


class Begin(msgspec.Struct, frozen=True):
    """The step from `pending` to `running`; makes the writer the owner.

    `snapshot`: stored form. `session`: the thread of a chat session, whose runs take turns.
    """

    snapshot: Any
    session: str | None = None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The step into a terminal status."""

    status: str
    final_output: Any = None
    error_message: str = ""
    error_code: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one step of an execution changes, in one transaction."""

    execution_id: str
    owner: Owner
    now: datetime
    active_us: int
    records: tuple[JournalRow, ...] = ()
    logs: tuple[LogRow, ...] = ()
    events: tuple[EventDraft, ...] = ()
    checkpoint: Checkpoint | None = None
    appends: tuple[threads.ThreadAppend, ...] = ()
    totals: Totals | None = None
    begin: Begin | None = None
    episode: episodes.Opening | None = None
    """Opened with the first step."""
    end: End | None = None
    questions: tuple[Question, ...] = ()
    waits_for: tuple[str, ...] = ()
    """The open questions without whose answers nothing goes on: the execution is interrupted."""
    dispatches: tuple[str, ...] = ()
    """Kinds of what is to be done after the end."""
    settled: tuple[budgets.Settled, ...] = ()
    """What model calls used that had a reservation."""
    starts: bool = False
    """Nodes run after this step, if the epic's budget allows it."""


class Written(msgspec.Struct, frozen=True):
    """A step that was written: its numbered events, and whether its owner has given it up."""

    events: tuple[StoredEvent, ...]
    interrupted: bool = False


# The statements of every step are built once: building one costs as much as running it. Values
# without a parameter of their own are set as columns.
_this = executions.c.id == bindparam("this")
_has_task = exists().where(tasks.c.execution_id == bindparam("this"))
# SQLite 3.40 takes `IS NOT NULL` for true in RETURNING.
_has_parent = func.coalesce(executions.c.parent_execution_id, "") != ""
_step = (
    update(executions)
    .values(last_seq=executions.c.last_seq + bindparam("more"))
    .returning(
        executions.c.last_seq,
        # Whether it is worth to look for the epic of an execution: few have one.
        or_(_has_parent, _has_task).label("may_have_epic"),
    )
)
_first_step = _step.where(_this, executions.c.status == literal_column("'pending'"))
_next_step = _step.where(
    _this,
    executions.c.owner == bindparam("writer"),
    executions.c.epoch == bindparam("since"),
    executions.c.completed_at.is_(None),
)
_add = {table.name: insert(table) for table in (journal, execution_logs, execution_events)}
_forget_progress = delete(run_checkpoints).where(
    run_checkpoints.c.execution_id == bindparam("this")
)
_forget_progress_of = _forget_progress.where(
    run_checkpoints.c.node_id == bindparam("node"),
    run_checkpoints.c.iteration == bindparam("turn"),
)
_let_go = update(executions).where(_this).values(status="interrupted", owner=None, epoch=None)


def write_step(conn: Connection, step: Step) -> Written:
    """Write a step, if the execution still belongs to its owner.

    Numbers are taken here, in the transaction, so that a step that is never written leaves no gap.

    Raises:
        Fenced: owner or epoch differ, or the execution has ended.
        OverBudget: the step starts nodes, and more than the budget is used.
        NotItsTurn: it is the first step, and the chat session is busy with another.
    """
    if step.begin is not None and step.begin.session is not None:
        sessions.require_turn(conn, step.execution_id, step.begin.session)
    statement = _next_step if step.begin is None else _first_step
    row = conn.execute(statement, _changes(step)).one_or_none()
    if row is None:
        raise Fenced.of(conn, step.execution_id)
    _settle(conn, step, may_have_epic=row.may_have_epic)
    first = row.last_seq - len(step.events) + 1
    timestamp = step.now.timestamp()
    events = tuple(
        StoredEvent(first + index, draft.type, timestamp, draft.data)
        for index, draft in enumerate(step.events)
    )
    _insert(conn, journal, step.execution_id, step.records)
    _insert(conn, execution_logs, step.execution_id, step.logs)
    _insert(conn, execution_events, step.execution_id, events)
    if step.checkpoint is not None:
        _put_checkpoint(conn, step.execution_id, step.checkpoint, step.now)
    for result in step.records:
        if result.kind == "result" and result.iteration != "0":  # a loop would leave one per item
            of = {"this": step.execution_id, "node": result.node_id, "turn": result.iteration}
            conn.execute(_forget_progress_of, of)
    for append in step.appends:
        threads.append(conn, append)
    open_all(conn, step.execution_id, step.questions)
    dispatches.add(conn, step.execution_id, step.dispatches, due_at=step.now)
    if step.episode is not None:
        episodes.begin(conn, step.execution_id, step.episode, now=step.now)
    if step.end is not None:
        episodes.finish(conn, step.execution_id, msgspec.structs.asdict(step.end), now=step.now)
        roll_up.carry_over(conn, step.execution_id, now=step.now)
        if step.end.status == "failed":
            failures.note(conn, step.execution_id, due_at=step.now)
        conn.execute(_forget_progress, {"this": step.execution_id})
        forget_open(conn, step.execution_id)
    return Written(events, interrupted=_interrupt(conn, step))


def _settle(conn: Connection, step: Step, *, may_have_epic: bool) -> None:
    """Bring the accounts of model calls up to the step; then look whether it may start nodes."""
    budgets.settle(conn, step.settled)
    if step.end is not None:
        budgets.forget_execution(conn, step.execution_id)
    elif may_have_epic and step.totals is not None:
        budgets.forget_nodes(conn, step.execution_id, {log.node_id for log in step.logs})
    if may_have_epic and step.starts:
        budgets.refuse_over_budget(conn, step.execution_id)


def _interrupt(conn: Connection, step: Step) -> bool:
    """Let go of an execution that only waits for answers, unless one has come meanwhile."""
    if not step.waits_for or any_answered(conn, step.waits_for):
        return False
    conn.execute(_let_go, {"this": step.execution_id})
    return True


def _changes(step: Step) -> dict[str, Any]:
    """Return the parameters of the statement that moves an execution on."""
    changes: dict[str, Any] = {
        "this": step.execution_id,
        "writer": step.owner.node_id,
        "since": step.owner.epoch,
        "more": len(step.events),
        "last_activity_at": step.now,
        "active_us": step.active_us,
    }
    if step.checkpoint is not None or any(record.kind == "result" for record in step.records):
        changes["recovery_count"] = 0  # progress: crashes in a row end here (engine.md §10.3)
    if step.totals is not None:
        changes |= msgspec.structs.asdict(step.totals)
    if step.begin is not None:
        changes |= {
            "status": "running",
            "started_at": step.now,
            "listed_at": step.now,
            "snapshot": step.begin.snapshot,
            "owner": step.owner.node_id,
            "epoch": step.owner.epoch,
        }
    if step.end is not None:
        changes |= msgspec.structs.asdict(step.end)
        changes |= {"completed_at": step.now, "owner": None, "epoch": None}
    return changes


def _insert(
    conn: Connection, table: Any, execution_id: str, rows: tuple[msgspec.Struct, ...]
) -> None:
    if rows:
        values = [msgspec.structs.asdict(row) | {"execution_id": execution_id} for row in rows]
        conn.execute(_add[table.name], values)


def _put_checkpoint(
    conn: Connection, execution_id: str, checkpoint: Checkpoint, now: datetime
) -> None:
    keys = {
        "execution_id": execution_id,
        "node_id": checkpoint.node_id,
        "iteration": checkpoint.iteration,
    }
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    values = {"state": checkpoint.state, "updated_at": now}
    statement = dialect.insert(run_checkpoints).values(**keys, **values)
    conn.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=values))


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """An execution with all that its actor needs to start it or to go on."""

    id: str
    workflow_id: int
    workflow_slug: str
    workflow_owner_id: int
    workflow_version: int
    user_id: int | None
    thread_id: str
    serial: bool
    status: str
    source: str
    trigger_node_id: str | None
    trigger: dict[str, Any]
    trigger_payload: Any
    user_context: Any
    snapshot: Any
    retry_of: str | None
    retry_from: str | None
    limit_seconds: int
    active_us: int
    created_at: datetime
    started_at: datetime | None
    owner: str | None
    epoch: int | None
    last_seq: int
    records: tuple[Any, ...]
    checkpoints: dict[tuple[str, str], Any]
    """{(node, iteration): saved progress}"""


_OWN = tuple(executions.c[name] for name in Loaded.__struct_fields__ if name in executions.c)


_load = (
    select(
        *_OWN,
        workflows.c.slug.label("workflow_slug"),
        workflows.c.owner_id.label("workflow_owner_id"),
        workflows.c.version.label("workflow_version"),
    )
    .join(workflows, workflows.c.id == executions.c.workflow_id)
    .where(_this, executions.c.completed_at.is_(None))
)
_load_progress = select(
    run_checkpoints.c.node_id, run_checkpoints.c.iteration, run_checkpoints.c.state
).where(run_checkpoints.c.execution_id == bindparam("this"))
_list_records = (
    select(journal.c.record)
    .where(journal.c.execution_id == bindparam("this"))
    .order_by(journal.c.position)
)


def load(conn: Connection, execution_id: str) -> Loaded | None:
    """Return an execution that has not ended, with its journal; None otherwise."""
    this = {"this": execution_id}
    row = conn.execute(_load, this).mappings().one_or_none()
    if row is None:
        return None
    records = list_records(conn, execution_id)
    progress = conn.execute(_load_progress, this)
    return Loaded(
        **row,
        records=records,
        checkpoints={(entry.node_id, entry.iteration): entry.state for entry in progress},
    )


def list_records(conn: Connection, execution_id: str) -> tuple[Any, ...]:
    """Return the journal of an execution, in the order of the fold."""
    return tuple(conn.scalars(_list_records, {"this": execution_id}))


def end_directly(
    conn: Connection, execution_id: str, end: End, event: EventDraft, now: datetime, unstarted: bool
) -> StoredEvent | None:
    """End an execution that no actor runs, with its terminal event; None if it was too late.

    For those that never ran (`unstarted`), and those whose actor cannot be brought up to end them.
    """
    status = executions.c.status
    wanted = status == "pending" if unstarted else status.not_in(TERMINAL)
    last_seq = conn.scalar(
        update(executions)
        .where(executions.c.id == execution_id, wanted)
        .values(
            **msgspec.structs.asdict(end),
            completed_at=now,
            last_activity_at=now,
            last_seq=executions.c.last_seq + 1,
            owner=None,
            epoch=None,
        )
        .returning(executions.c.last_seq)
    )
    if last_seq is None:
        return None
    stored = StoredEvent(last_seq, event.type, now.timestamp(), event.data)
    _insert(conn, execution_events, execution_id, (stored,))
    episodes.finish(conn, execution_id, msgspec.structs.asdict(end), now=now)
    roll_up.carry_over(conn, execution_id, now=now)
    if end.status == "failed":
        failures.note(conn, execution_id, due_at=now)
    conn.execute(_forget_progress, {"this": execution_id})
    budgets.forget_execution(conn, execution_id)
    forget_open(conn, execution_id)
    return stored

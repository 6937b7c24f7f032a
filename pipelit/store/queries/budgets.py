"""What an epic's budget has been used for, and what calls under way may still use.

A model call of an execution with an epic has a row from before it is sent until its node's usage
is in the execution's totals: first what it may use, then, settled, what it used. Contract:
engine.md §25.4.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from pipelit.engine.budget import Account, overdraft
from pipelit.store.queries.dispatches import ROLL_UP
from pipelit.store.queries.executions import TERMINAL
from pipelit.store.schema import dispatches, epics, executions, reservations, tasks


class OverBudget(Exception):
    """More is used than the budget of the execution's epic allows. The text says how much."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """A model call that may begin. `micros`: micro-dollars."""

    id: str
    execution_id: str
    node_id: str
    tokens: int
    micros: int
    created_at: datetime


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What a call with a reservation has used."""

    reservation_id: str
    tokens: int
    micros: int


_line = (
    select(executions.c.id, executions.c.parent_execution_id, literal(0).label("distance"))
    .where(executions.c.id == bindparam("of"))
    .cte("line", recursive=True)
)
_line = _line.union_all(
    select(executions.c.id, executions.c.parent_execution_id, _line.c.distance + 1).join_from(
        executions, _line, executions.c.id == _line.c.parent_execution_id
    )
)
_epic_of = (
    select(tasks.c.epic_id)
    .join(_line, tasks.c.execution_id == _line.c.id)
    .order_by(_line.c.distance, tasks.c.created_at, tasks.c.id)
    .limit(1)
)


def find_epic(conn: Connection, execution_id: str) -> str | None:
    """Return the epic an execution works for: that of its task, else of the nearest ancestor's."""
    return conn.scalar(_epic_of, {"of": execution_id})


def load_account(conn: Connection, epic_id: str) -> Account:
    """Return the state of an epic's budget; without end if the epic is gone."""
    columns = (
        epics.c.budget_tokens,
        epics.c.budget_micros,
        epics.c.spent_tokens,
        epics.c.spent_micros,
    )
    row = conn.execute(select(*columns).where(epics.c.id == epic_id)).one_or_none()
    if row is None or (row.budget_tokens is None and row.budget_micros is None):
        return Account()
    live_tokens, live_micros = _live(conn, epic_id)
    calls = _calls(conn, epic_id)
    return Account(
        budget_tokens=row.budget_tokens,
        budget_micros=row.budget_micros,
        used_tokens=row.spent_tokens + live_tokens + calls.used_tokens,
        used_micros=row.spent_micros + live_micros + calls.used_micros,
        reserved_tokens=calls.reserved_tokens,
        reserved_micros=calls.reserved_micros,
    )


def refuse_over_budget(conn: Connection, execution_id: str) -> None:
    """Raise `OverBudget` if more is used than the budget of an execution's epic allows."""
    epic_id = find_epic(conn, execution_id)
    problem = None if epic_id is None else overdraft(load_account(conn, epic_id))
    if problem is not None:
        raise OverBudget(problem)


def _calls(conn: Connection, epic_id: str) -> Any:
    """Add up the calls that are in no totals yet: those that ended, and those under way."""

    def total(column: Any, settled: ColumnElement[bool], label: str) -> Any:
        wanted = case((settled, column), else_=0)
        return func.coalesce(func.sum(wanted), 0).label(label)

    ended = reservations.c.settled
    statement = select(
        total(reservations.c.tokens, ended, "used_tokens"),
        total(reservations.c.micros, ended, "used_micros"),
        total(reservations.c.tokens, ~ended, "reserved_tokens"),
        total(reservations.c.micros, ~ended, "reserved_micros"),
    )
    row = conn.execute(statement.where(reservations.c.epic_id == epic_id)).mappings().one()
    return _Calls(**{name: int(value) for name, value in row.items()})


class _Calls(msgspec.Struct, frozen=True):
    used_tokens: int
    used_micros: int
    reserved_tokens: int
    reserved_micros: int


_waits = exists().where(
    dispatches.c.execution_id == executions.c.id,
    dispatches.c.kind == ROLL_UP,
    ~dispatches.c.done,
)
_family = (
    select(tasks.c.id.label("task_id"), executions.c.id, executions.c.retry_of)
    .join(executions, executions.c.id == tasks.c.execution_id)
    .where(tasks.c.epic_id == bindparam("epic"), or_(executions.c.status.not_in(TERMINAL), _waits))
    .cte("family", recursive=True)
)
_has_task = exists().where(tasks.c.execution_id == executions.c.id)
_joins = or_(
    and_(executions.c.parent_execution_id == _family.c.id, ~_has_task),
    executions.c.id == _family.c.retry_of,
)
_family = _family.union(
    select(_family.c.task_id, executions.c.id, executions.c.retry_of).join_from(
        executions, _family, _joins
    )
)
_live_tasks = (
    select(
        tasks.c.actual_tokens,
        tasks.c.actual_micros,
        func.sum(executions.c.total_tokens).label("tokens"),
        func.sum(executions.c.cost_micros).label("micros"),
    )
    .select_from(_family)
    .join(executions, executions.c.id == _family.c.id)
    .join(tasks, tasks.c.id == _family.c.task_id)
    .group_by(tasks.c.id, tasks.c.actual_tokens, tasks.c.actual_micros)
)


def _live(conn: Connection, epic_id: str) -> tuple[int, int]:
    """Return what the tasks of an epic will have more, tokens and money, when rolled up now.

    Each will have what `roll_up.sum_costs` says: its execution, those it retries, and descendants
    without a task of their own.
    """
    rows = conn.execute(_live_tasks, {"epic": epic_id}).all()
    return (
        sum(max(0, int(row.tokens) - row.actual_tokens) for row in rows),
        sum(max(0, int(row.micros) - row.actual_micros) for row in rows),
    )


def lock(conn: Connection, epic_id: str) -> None:
    """Let nobody else reserve of an epic before the transaction ends."""
    # SQLite has one writer and ignores this.
    conn.execute(select(epics.c.id).where(epics.c.id == epic_id).with_for_update())


def reserve(conn: Connection, epic_id: str, wanted: Reservation) -> None:
    """Store a reservation."""
    conn.execute(
        insert(reservations).values(
            **msgspec.structs.asdict(wanted), epic_id=epic_id, settled=False
        )
    )


_forget_execution = delete(reservations).where(
    reservations.c.execution_id == bindparam("execution_id")
)


def settle(conn: Connection, settled: Sequence[Settled]) -> None:
    """Replace reservations by what their calls used."""
    for call in settled:
        conn.execute(
            update(reservations)
            .where(reservations.c.id == call.reservation_id)
            .values(tokens=call.tokens, micros=call.micros, settled=True)
        )


def forget_nodes(conn: Connection, execution_id: str, nodes: Collection[str]) -> None:
    """Forget the calls of nodes whose usage is in their execution's totals now."""
    if nodes:
        mine = reservations.c.execution_id == execution_id
        conn.execute(delete(reservations).where(mine, reservations.c.node_id.in_(nodes)))


def forget_execution(conn: Connection, execution_id: str) -> None:
    """Forget the calls of an execution that has ended."""
    conn.execute(_forget_execution, {"execution_id": execution_id})


def release_open(conn: Connection, execution_id: str) -> None:
    """Release what calls had reserved that ended together with the server that made them."""
    mine = reservations.c.execution_id == execution_id
    conn.execute(delete(reservations).where(mine, ~reservations.c.settled))

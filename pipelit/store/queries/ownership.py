"""Who runs what: executions are taken up, released, found again. engine.md §10.3, §10.7."""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, and_, or_, select, update

from pipelit.store.queries import budgets
from pipelit.store.queries.executions import TERMINAL
from pipelit.store.queries.fencing import Fenced
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.servers import live_server
from pipelit.store.schema import executions


def adopt(
    conn: Connection, execution_id: str, owner: Owner, *, crashed: bool, to_end: bool = False
) -> int | None:
    """Make *owner* the one who writes for a started execution without a live owner.

    Args:
        crashed: counts as a recovery (reset by the next committed result).
        to_end: also one that waits for an answer, and needs no owner for that.

    Returns:
        Its recovery count; None if it has ended or is gone.
    """
    wanted = executions.c.status.not_in(TERMINAL if to_end else (*TERMINAL, "interrupted"))
    count = conn.scalar(
        update(executions)
        .where(executions.c.id == execution_id, wanted)
        .values(
            owner=owner.node_id,
            epoch=owner.epoch,
            recovery_count=executions.c.recovery_count + int(crashed),
        )
        .returning(executions.c.recovery_count)
    )
    if count is None:
        return None
    budgets.release_open(conn, execution_id)  # whoever made the calls is gone
    return int(count)


def require_owner(conn: Connection, execution_id: str, owner: Owner) -> None:
    """Make sure that *owner* may write for an execution until the transaction ends.

    Raises:
        Fenced: it may not.
    """
    mine = and_(
        executions.c.id == execution_id,
        executions.c.owner == owner.node_id,
        executions.c.epoch == owner.epoch,
        executions.c.status.not_in(TERMINAL),
    )
    if conn.scalar(select(executions.c.id).where(mine).with_for_update()) is None:
        raise Fenced.of(conn, execution_id)


def release_all(conn: Connection, owner: Owner) -> None:
    """Give up every execution of an owner, in order: others may take them up at once."""
    conn.execute(
        update(executions)
        .where(executions.c.owner == owner.node_id, executions.c.epoch == owner.epoch)
        .values(owner=None, epoch=None)
    )


class Orphan(msgspec.Struct, frozen=True):
    """An execution without a live owner. `crashed`: its owner did not release it."""

    id: str
    created_seq: int
    status: str
    thread_id: str
    serial: bool
    crashed: bool
    last_activity_at: datetime


def find_orphans(conn: Connection, owner: Owner, *, after: int, limit: int) -> list[Orphan]:
    """Return a page of executions to take up: without an owner, or whose owner's lease ran out.

    Args:
        owner: who asks.
        after: the last `created_seq` of the page before; 0 for the first.

    On SQLite every other epoch is dead by definition: the file has one server.
    """
    foreign = or_(executions.c.owner != owner.node_id, executions.c.epoch != owner.epoch)
    if conn.dialect.name != "sqlite":
        foreign = and_(foreign, ~live_server(executions.c.owner, executions.c.epoch))
    dead = or_(executions.c.owner.is_(None), foreign)
    rows = conn.execute(
        select(
            executions.c.id,
            executions.c.created_seq,
            executions.c.status,
            executions.c.thread_id,
            executions.c.serial,
            executions.c.owner.is_not(None).label("crashed"),
            executions.c.last_activity_at,
        )
        .where(
            executions.c.status.in_(("pending", "running")),
            executions.c.created_seq > after,
            dead,
        )
        .order_by(executions.c.created_seq)
        .limit(limit)
    )
    return [Orphan(*row) for row in rows]


def owned(conn: Connection, owner: Owner) -> set[str]:
    """Return the executions that *owner* is to run."""
    return set(
        conn.scalars(
            select(executions.c.id).where(
                # Only these have an owner; without saying so every execution ever kept is read.
                executions.c.status.in_(("pending", "running", "interrupted")),
                executions.c.owner == owner.node_id,
                executions.c.epoch == owner.epoch,
            )
        )
    )

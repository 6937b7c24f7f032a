"""Server processes: who they are, their epochs and leases. Contract: engine.md §10.7.

Only the database's clock judges a lease: the clocks of several machines differ.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    exists,
    func,
    insert,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from pipelit.store.schema import servers
from pipelit.store.types import UtcDateTime

LEASE = timedelta(seconds=15)
"""How long a server counts as alive after a renewal."""

_EPOCH_LOCK = 0x65706F63  # any constant: servers that start together take epochs one by one


class ServerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One server process, or the last one of a data directory."""

    node_id: str
    epoch: int
    started_at: datetime
    lease_until: datetime
    live: bool
    """By the database's clock, when the row was read; on SQLite the one that uses the file."""


class _NowMicros(FunctionElement[int]):
    """The database's clock, as `UtcDateTime` stores it."""

    inherit_cache = True
    type = BigInteger()


@compiles(_NowMicros, "sqlite")
def _sqlite_now(element: object, compiler: object, **options: Any) -> str:
    # A Julian day is a float: milliseconds are what it holds.
    return "(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)"


@compiles(_NowMicros, "postgresql")
def _postgres_now(element: object, compiler: object, **options: Any) -> str:
    # Not now(): that is the start of the transaction, which many units share.
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


def database_now(*, plus: timedelta = timedelta(0)) -> ColumnElement[datetime]:
    """Return the expression for the database's time, *plus* something."""
    micros = plus // timedelta(microseconds=1)
    return type_coerce(_NowMicros() + micros, UtcDateTime)


def live_server(
    node_id: ColumnElement[str | None], epoch: ColumnElement[int | None]
) -> ColumnElement[bool]:
    """Return the condition that the owner named by two columns of a row is alive."""
    return exists().where(servers.c.node_id == node_id, servers.c.epoch == epoch, _lease_runs())


def register_server(conn: Connection, node_id: str) -> int:
    """Give the server *node_id* a new epoch and a fresh lease; return the epoch.

    Every older epoch of this node is dead from now on.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _EPOCH_LOCK})
    epoch = (conn.scalar(select(func.max(servers.c.epoch))) or 0) + 1
    values = {
        "epoch": epoch,
        "started_at": database_now(),
        "lease_until": database_now(plus=LEASE),
        "released": False,
    }
    mine = update(servers).where(servers.c.node_id == node_id)
    if not conn.execute(mine.values(values)).rowcount:
        conn.execute(insert(servers).values(node_id=node_id, **values))
    return int(epoch)


def renew_lease(conn: Connection, node_id: str, epoch: int) -> bool:
    """Prolong the lease of a server; False if it has lost it, and with it all it owned.

    On a shared database a lease that ran out is lost, for others may have taken over. On SQLite
    nobody can have: a laptop that slept simply goes on.
    """
    shared = conn.dialect.name != "sqlite"
    statement = (
        update(servers)
        .where(servers.c.node_id == node_id, servers.c.epoch == epoch)
        .where(_lease_runs() if shared else ~servers.c.released)
        .values(lease_until=database_now(plus=LEASE))
    )
    return conn.execute(statement).rowcount == 1


def lateness(conn: Connection, node_id: str, epoch: int) -> timedelta:
    """Return how long ago a server's lease ran out; 0 if the server has begun a later epoch."""
    until = conn.execute(
        select(servers.c.lease_until, database_now().label("now")).where(
            servers.c.node_id == node_id, servers.c.epoch == epoch
        )
    ).one_or_none()
    return timedelta(0) if until is None else max(timedelta(0), until.now - until.lease_until)


def release_server(conn: Connection, node_id: str, epoch: int) -> None:
    """End the lease of a server that stops in order; what it owned is free at once."""
    mine = and_(servers.c.node_id == node_id, servers.c.epoch == epoch)
    conn.execute(update(servers).where(mine).values(released=True, lease_until=database_now()))


def list_servers(conn: Connection) -> tuple[ServerRow, ...]:
    """Return every server the database knows, the youngest first.

    On SQLite the file has room for one server, whose lease nobody renews.
    """
    columns = (servers.c.node_id, servers.c.epoch, servers.c.started_at, servers.c.lease_until)
    live = _lease_runs()
    if conn.dialect.name == "sqlite":
        youngest = select(func.max(servers.c.epoch)).scalar_subquery()
        live = and_(~servers.c.released, servers.c.epoch == youngest)
    statement = select(*columns, live.label("live")).order_by(servers.c.epoch.desc())
    return tuple(ServerRow(**row) for row in conn.execute(statement).mappings())


def _lease_runs() -> ColumnElement[bool]:
    return and_(~servers.c.released, servers.c.lease_until > database_now())

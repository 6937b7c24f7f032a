"""Engines for the two databases, set up for durability, and what their errors mean.

One engine per purpose: the writer's single connection, the pool of readers, the migration. None
retries, none waits without a limit.
"""

import enum
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import QueuePool

from pipelit.store.errors import StartError

BUSY_TIMEOUT = 5.0  # seconds a connection waits for another process's lock
STATEMENT_TIMEOUT = 30.0  # seconds one statement may take on PostgreSQL

_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    # WAL with NORMAL may lose the last commits at power loss (sqlite.org/pragma.html#synchronous).
    "PRAGMA synchronous = FULL",
    # After a burst the log shrinks to this many bytes.
    "PRAGMA journal_size_limit = 67108864",
)
_POSTGRES_CONNECT = {
    "connect_timeout": 5,
    # A peer that vanished ends the call instead of holding the thread for hours.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_POSTGRES_SETTINGS = (
    f"SET statement_timeout = '{STATEMENT_TIMEOUT:.0f}s'",
    f"SET lock_timeout = '{BUSY_TIMEOUT:.0f}s'",
    # A server that froze inside a transaction must not hold its locks.
    "SET idle_in_transaction_session_timeout = '10s'",
)


class Purpose(enum.Enum):
    """What an engine's connections are for."""

    WRITE = "write"
    READ = "read"
    MIGRATE = "migrate"


def parse_database_url(text: str) -> URL:
    """Parse a `sqlite:///path` or `postgresql://…` address.

    Raises:
        StartError: it is neither. The text is not repeated: it may hold a password.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise StartError("The database URL is not valid.") from None
    match url.get_backend_name():
        case "sqlite" if url.database and url.database != ":memory:":
            return url.set(drivername="sqlite+pysqlite")
        case "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case _:
            raise StartError("The database URL must be sqlite:///path or postgresql://host/name.")


def sqlite_path(url: URL) -> Path | None:
    """Return the database file with every symbolic link resolved; None for PostgreSQL."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    return Path(url.database).resolve()


def open_engine(url: URL, purpose: Purpose, *, size: int = 1) -> Engine:
    """Build an engine with at most *size* connections; nothing connects before the first use."""
    sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=STATEMENT_TIMEOUT,
        # Values are prompts and hashes of secrets: errors are logged, values never.
        hide_parameters=True,
        connect_args=_sqlite_connect() if sqlite else _POSTGRES_CONNECT,
        **({} if sqlite or purpose is not Purpose.READ else {"isolation_level": "REPEATABLE READ"}),
    )
    if sqlite:
        _prepare_sqlite(engine, purpose)
    else:
        _prepare_postgres(engine, purpose)
    return engine


def _sqlite_connect() -> dict[str, Any]:
    # isolation_level None: the driver starts no transaction behind our back.
    return {"isolation_level": None, "check_same_thread": False, "timeout": BUSY_TIMEOUT}


def _prepare_sqlite(engine: Engine, purpose: Purpose) -> None:
    pragmas = [*_SQLITE_PRAGMAS]
    if purpose is Purpose.MIGRATE:
        # Retention gives free pages back in steps. Only a new file can be told so, and the telling
        # waits for the writer: it must come first, and never on the way of a query.
        pragmas.insert(0, "PRAGMA auto_vacuum = INCREMENTAL")
    # Migrations rebuild tables, which enforced references would forbid; they check them at the end.
    pragmas.append(f"PRAGMA foreign_keys = {'OFF' if purpose is Purpose.MIGRATE else 'ON'}")
    if purpose is Purpose.READ:
        pragmas.append("PRAGMA query_only = ON")
    begin = "BEGIN" if purpose is Purpose.READ else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, record: object) -> None:
        for pragma in pragmas:
            connection.execute(pragma).close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _prepare_postgres(engine: Engine, purpose: Purpose) -> None:
    settings = [] if purpose is Purpose.MIGRATE else [*_POSTGRES_SETTINGS]
    if purpose is Purpose.READ:
        settings.append("SET default_transaction_read_only = on")

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: object) -> None:
        for setting in settings:
            connection.execute(setting)
        connection.commit()


class Trouble(enum.Enum):
    """What a database error says about the database itself, as opposed to the statement."""

    UNAVAILABLE = "unavailable"  # full, locked: the same later may work
    READ_ONLY = "read only"  # on a writing connection like unavailable; a query must not write
    TRANSIENT = "transient"  # deadlock: the same at once will probably work
    LOST = "lost"  # the connection is gone
    CORRUPTED = "corrupted"


_SQLITE_TROUBLE = {
    sqlite3.SQLITE_BUSY: Trouble.UNAVAILABLE,
    sqlite3.SQLITE_LOCKED: Trouble.UNAVAILABLE,
    sqlite3.SQLITE_READONLY: Trouble.READ_ONLY,
    sqlite3.SQLITE_IOERR: Trouble.UNAVAILABLE,
    sqlite3.SQLITE_FULL: Trouble.UNAVAILABLE,
    sqlite3.SQLITE_CANTOPEN: Trouble.UNAVAILABLE,
    sqlite3.SQLITE_CORRUPT: Trouble.CORRUPTED,
    sqlite3.SQLITE_NOTADB: Trouble.CORRUPTED,
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRES_TROUBLE = {
    "25006": Trouble.READ_ONLY,  # read_only_sql_transaction: a standby
    "40001": Trouble.TRANSIENT,  # serialization_failure
    "40P01": Trouble.TRANSIENT,  # deadlock_detected
    "55P03": Trouble.UNAVAILABLE,  # lock_not_available
    "25P03": Trouble.LOST,  # idle_in_transaction_session_timeout
    "57P01": Trouble.LOST,  # admin_shutdown
    "57P02": Trouble.LOST,  # crash_shutdown
    "57P03": Trouble.LOST,  # cannot_connect_now
    "57P04": Trouble.LOST,  # database_dropped
    "57P05": Trouble.LOST,  # idle_session_timeout
    "XX001": Trouble.CORRUPTED,  # data_corrupted
    "XX002": Trouble.CORRUPTED,  # index_corrupted
}
_POSTGRES_CLASSES = {
    "08": Trouble.LOST,  # connection exceptions
    "53": Trouble.UNAVAILABLE,  # insufficient resources: disk full, out of memory
}


def diagnose(error: BaseException) -> Trouble | None:
    """Tell what *error* says about the database; None when only the statement is to blame."""
    if not isinstance(error, DBAPIError):
        return None
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        # The low byte is the primary code; SQLite's extended codes refine it.
        code = getattr(cause, "sqlite_errorcode", None)
        return None if code is None else _SQLITE_TROUBLE.get(code & 0xFF)
    state = getattr(cause, "sqlstate", None)
    if state is None:
        return Trouble.LOST if error.connection_invalidated or _is_operational(cause) else None
    known = _POSTGRES_TROUBLE.get(state) or _POSTGRES_CLASSES.get(state[:2])
    return known or (Trouble.LOST if error.connection_invalidated else None)


def _is_operational(cause: object) -> bool:
    # psycopg reports a connection that broke or never came about without an SQLSTATE.
    return type(cause).__name__ in ("OperationalError", "ConnectionTimeout")

"""Who may start: one server per SQLite file; on PostgreSQL one after the other.

Both locks end with the process that holds them, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from pipelit.store.errors import StartError

_START_LOCK = 0x70697065  # any constant; names the lock among PostgreSQL's advisory locks


@contextmanager
def database_lock(database: Path) -> Iterator[None]:
    """Hold the lock file beside *database*, which names this process.

    Args:
        database: with symbolic links resolved, so that every name of a file has one lock.

    Raises:
        StartError: another process, or another store in this one, holds it.

    Contract: operations.md §5, engine.md §10.7.
    """
    descriptor = os.open(database.with_name(f"{database.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # flock, not lockf: that lock would go when anything in this process closed the file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StartError(f"Another Pipelit server (pid {pid}) uses this database.") from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        # The file stays: removing it would let two processes lock two files of one name.
        os.close(descriptor)


@contextmanager
def start_lock(engine: Engine) -> Iterator[None]:
    """Let servers that start together on one PostgreSQL check, migrate and register in turn.

    Waits as long as another server's start takes. On SQLite `database_lock` says it all.

    Args:
        engine: with a connection to spare for the lock.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": _START_LOCK})
        yield
        connection.execute(text("SELECT pg_advisory_unlock(:id)"), {"id": _START_LOCK})

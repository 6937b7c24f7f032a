"""One server per SQLite file: a lock the operating system releases with the process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelit.store.errors import StartError


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

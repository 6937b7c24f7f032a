"""One server per SQLite file. Contract: operations.md §5."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelit.store import StartError
from pipelit.store.lock import database_lock

_HOLDER = """
import sys
from pathlib import Path
from pipelit.store.lock import database_lock
with database_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_server(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock of *database*."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    """The refusal names the other process; its death, however sudden, frees the lock."""
    database = tmp_path / "db.sqlite3"
    with another_server(database) as process:
        with pytest.raises(StartError) as caught, database_lock(database):
            pass

        process.kill()
        process.wait()
        with database_lock(database):
            holder = (tmp_path / "db.sqlite3.lock").read_text()

    assert str(caught.value) == f"Another Pipelit server (pid {process.pid}) uses this database."
    assert holder != f"{process.pid}\n"


def test_a_second_store_in_one_process_is_refused(tmp_path: Path) -> None:
    """The lock is per opening, not per process, and free after the block."""
    database = tmp_path / "db.sqlite3"

    with database_lock(database), pytest.raises(StartError), database_lock(database):
        pass

    with database_lock(database):
        pass

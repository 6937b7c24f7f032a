"""How connections are set up, and what the databases' errors are taken for."""

import sqlite3

import psycopg
import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from pipelit.store.database import Purpose, Trouble, diagnose, open_engine


@pytest.mark.parametrize("purpose", Purpose)
def test_sqlite_is_set_up_for_durability(sqlite_items: URL, purpose: Purpose) -> None:
    """Every connection syncs each commit and waits for locks; free pages can be given back."""
    engine = open_engine(sqlite_items, purpose)
    with engine.connect() as connection:
        found = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "auto_vacuum", "busy_timeout")
        }
        references = connection.scalar(text("PRAGMA foreign_keys"))
    engine.dispose()

    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "auto_vacuum": 2,
        "busy_timeout": 5000,
    }
    assert references == (purpose is not Purpose.MIGRATE)


class SqliteError(sqlite3.OperationalError):
    """An error with a code, as only SQLite itself can make one."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.sqlite_errorcode = code


def wrapped(cause: Exception) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, cause)


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (SqliteError(sqlite3.SQLITE_FULL), Trouble.UNAVAILABLE),
        (SqliteError(sqlite3.SQLITE_IOERR_WRITE), Trouble.UNAVAILABLE),
        (SqliteError(sqlite3.SQLITE_BUSY_SNAPSHOT), Trouble.UNAVAILABLE),
        (SqliteError(sqlite3.SQLITE_READONLY), Trouble.READ_ONLY),
        (SqliteError(sqlite3.SQLITE_CORRUPT_INDEX), Trouble.CORRUPTED),
        (SqliteError(sqlite3.SQLITE_CONSTRAINT_UNIQUE), None),
        (sqlite3.ProgrammingError("no code"), None),
        (psycopg.errors.DiskFull(), Trouble.UNAVAILABLE),
        (psycopg.errors.ReadOnlySqlTransaction(), Trouble.READ_ONLY),
        (psycopg.errors.DeadlockDetected(), Trouble.TRANSIENT),
        (psycopg.errors.AdminShutdown(), Trouble.LOST),
        (psycopg.errors.ConnectionFailure(), Trouble.LOST),
        (psycopg.errors.DataCorrupted(), Trouble.CORRUPTED),
        (psycopg.errors.QueryCanceled(), None),
        (psycopg.errors.UniqueViolation(), None),
        (psycopg.OperationalError("the connection is closed"), Trouble.LOST),
        (psycopg.ProgrammingError("no state"), None),
    ],
)
def test_errors_of_the_database_are_told_from_errors_of_a_statement(
    error: Exception, trouble: Trouble | None
) -> None:
    """Only what concerns the database itself is trouble; the rest is the unit's own failure."""
    assert diagnose(wrapped(error)) is trouble


def test_other_errors_say_nothing_about_the_database() -> None:
    """An error of the unit's code is never trouble."""
    assert diagnose(KeyError("a")) is None

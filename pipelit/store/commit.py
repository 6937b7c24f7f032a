"""Optimistic group commit: many units of work, one transaction, one `fsync`.

Runs in a thread and knows nothing of Trio. Units run without savepoints; only when one raises is
the batch rolled back and replayed with a savepoint around each, so that only the guilty one fails.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import outcome
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from pipelit.store.database import Trouble, diagnose
from pipelit.store.errors import CommitUncertain, StorageUnavailable, StoreCorrupted

T = TypeVar("T")

Unit: TypeAlias = Callable[[Connection], T]
"""A piece of work on the database. It may run more than once before it counts, so it uses no clock
and no randomness and has no effect but its SQL. What it returns or raises reaches its caller.

It returns plain values: rows are fetched inside. If it means to go on after a database error, it
wraps that statement in `conn.begin_nested()`, for PostgreSQL would refuse everything that follows.
It neither commits nor rolls back."""

AnyUnit: TypeAlias = Unit[Any]
Result: TypeAlias = outcome.Outcome[Any]

_ATTEMPTS = 3
_ASK_SECONDS, _ASK_PAUSE = 10.0, 0.1


class Committer:
    """The one writing connection. Used by one thread at a time, not always the same one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def commit(self, units: Sequence[AnyUnit]) -> list[Result]:
        """Run *units* in order and make them durable together.

        Returns:
            What each unit returned or raised. Those that raised left nothing behind, the others
            are on disk.

        Raises:
            StorageUnavailable: nothing was committed, the whole batch can be tried again.
            CommitUncertain: all or nothing of it was committed, and nobody can say which.
            StoreCorrupted: the file is damaged; nothing was committed.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(units)
            except DBAPIError as error:
                self.close()
                match diagnose(error):
                    case Trouble.TRANSIENT | Trouble.LOST:
                        continue
                    case Trouble.CORRUPTED:
                        raise StoreCorrupted(f"the database is damaged: {error.orig}") from error
                    case Trouble.UNAVAILABLE | Trouble.READ_ONLY:
                        raise StorageUnavailable from error
                    case None:
                        # It refuses the transaction as such: no unit can be singled out.
                        return [outcome.Error(error) for _ in units]
            except BaseException:
                # Unplanned: leave no connection behind that is inside a transaction.
                self.close()
                raise
        raise StorageUnavailable

    def close(self) -> None:
        """Give up the connection. The next commit opens a new one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.invalidate()
        connection.close()

    def _attempt(self, units: Sequence[AnyUnit]) -> list[Result]:
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        transaction = connection.begin()
        try:
            results: list[Result] = [outcome.Value(unit(connection)) for unit in units]
        except Exception as error:
            # Whatever a unit raises is its own result, unless the database itself is in trouble.
            transaction.rollback()
            if diagnose(error):
                raise
            if len(units) == 1:
                return [outcome.Error(error)]
            transaction = connection.begin()
            results = [_run_guarded(connection, unit) for unit in units]
        number = _transaction_number(connection)
        try:
            transaction.commit()
        except DBAPIError as error:
            if diagnose(error) is not Trouble.LOST:
                raise
            self.close()
            if not _was_committed(self._engine, number):
                raise
        return results


def _transaction_number(connection: Connection) -> str | None:
    """Return by what PostgreSQL will know this transaction later; None if it wrote nothing."""
    if connection.dialect.name != "postgresql":
        return None
    number: str | None = connection.scalar(
        text("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")
    )
    return number


def _was_committed(engine: Engine, number: str | None) -> bool:
    """Ask on a new connection what became of a transaction whose answer got lost.

    Raises:
        CommitUncertain: the database does not answer in time, or does not know (a standby took
            over, for example).
    """
    if number is None:
        return False
    deadline = time.monotonic() + _ASK_SECONDS
    while time.monotonic() < deadline:
        try:
            with engine.connect() as connection:
                status = connection.scalar(
                    text("SELECT pg_xact_status(CAST(:number AS xid8))"), {"number": number}
                )
        except DBAPIError as error:
            if diagnose(error) is None:
                break
            status = "unreachable"
        match status:
            case "committed":
                return True
            case "aborted":
                return False
            case None:
                break
            case _:
                time.sleep(_ASK_PAUSE)
    raise CommitUncertain("the connection broke during a commit")


def _run_guarded(connection: Connection, unit: AnyUnit) -> Result:
    savepoint = connection.begin_nested()
    try:
        value = unit(connection)
    except Exception as error:
        # The unit's own result, as above; its changes alone are undone.
        if diagnose(error):
            raise
        savepoint.rollback()
        return outcome.Error(error)
    savepoint.commit()
    return outcome.Value(value)

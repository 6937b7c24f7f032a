"""Optimistic group commit: many units of work, one transaction, one `fsync`.

Runs in a thread and knows nothing of Trio. Units run without savepoints; only when one raises is
the batch rolled back and replayed with a savepoint around each, so that only the guilty one fails.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import outcome
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from pipelit.store.database import Trouble, diagnose
from pipelit.store.errors import CommitUncertain, StorageUnavailable, StoreCorrupted

T = TypeVar("T")

Unit: TypeAlias = Callable[[Connection], T]
"""A piece of work on the database. It may run more than once before it counts, so it uses no clock
and no randomness and has no effect but its SQL. What it returns or raises reaches its caller."""

AnyUnit: TypeAlias = Unit[Any]
Result: TypeAlias = outcome.Outcome[Any]

_ATTEMPTS = 3


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
                    case _:
                        raise StorageUnavailable from error
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
        try:
            transaction.commit()
        except DBAPIError as error:
            if diagnose(error) is Trouble.LOST:
                self.close()
                raise CommitUncertain("the connection broke during a commit") from error
            raise
        return results


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

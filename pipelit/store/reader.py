"""Queries beside the writer: a pool of threads, each query in one read-only snapshot."""

import sqlite3
from typing import Generic, TypeVar

import trio
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pipelit.store.commit import Unit
from pipelit.store.database import Trouble, diagnose
from pipelit.store.errors import ReadTimeout, StorageUnavailable, StoreCorrupted
from pipelit.store.writer import Hold

T = TypeVar("T")

READERS = 4
READ_TIMEOUT = 30.0  # seconds
_STEPS_BETWEEN_LOOKS = 10_000  # SQLite instructions, well under a millisecond


class Reader:
    """Runs queries in threads; the size of the pool is the limit of threads."""

    def __init__(
        self, engine: Engine, *, hold: Hold, size: int = READERS, timeout: float = READ_TIMEOUT
    ) -> None:
        self._engine = engine
        self._hold = hold
        self._limiter = trio.CapacityLimiter(size)
        self._timeout = timeout

    async def read(self, query: Unit[T], *, timeout: float | None = None) -> T:
        """Run *query* on a snapshot of what is committed and return what it returns.

        Cancelling, and the deadline, abandon the query at once: it changes nothing.

        Args:
            query: only reads; fetches its rows before it returns.
            timeout: seconds, the wait for a free thread included; None means the pool's own.

        Raises:
            ReadTimeout: the deadline passed.
            StorageUnavailable: the database does not answer.
        """
        call = _Call(self._engine, query)
        with trio.move_on_after(self._timeout if timeout is None else timeout):
            try:
                with self._hold():
                    return await trio.to_thread.run_sync(
                        call.run, abandon_on_cancel=True, limiter=self._limiter
                    )
            finally:
                call.abandoned = True
        raise ReadTimeout


class _Call(Generic[T]):
    """One query on its way through a thread. Trio's side sets `abandoned`, the thread reads it."""

    def __init__(self, engine: Engine, query: Unit[T]) -> None:
        self._engine = engine
        self._query = query
        self.abandoned = False

    def run(self) -> T:
        """Run the query, and once more if the connection turned out to be dead."""
        try:
            try:
                return self._attempt()
            except DBAPIError as error:
                if diagnose(error) is not Trouble.LOST or self.abandoned:
                    raise
                return self._attempt()
        except DBAPIError as error:
            match diagnose(error):
                case None | Trouble.READ_ONLY:
                    raise
                case Trouble.CORRUPTED:
                    raise StoreCorrupted(f"the database is damaged: {error.orig}") from error
                case _:
                    raise StorageUnavailable from error

    def _attempt(self) -> T:
        with self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            if not isinstance(raw, sqlite3.Connection):
                return self._query(connection)
            # The only way to stop a SQLite query that nobody waits for. PostgreSQL has its timeout.
            raw.set_progress_handler(lambda: self.abandoned, _STEPS_BETWEEN_LOOKS)
            try:
                return self._query(connection)
            finally:
                raw.set_progress_handler(None, 0)

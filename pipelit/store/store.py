"""The store as the rest of the product sees it."""

from contextlib import nullcontext
from typing import TypeVar

import trio
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from pipelit.store.commit import Committer, Unit
from pipelit.store.database import Purpose, open_engine
from pipelit.store.errors import ReadTimeout, StorageUnavailable, StoreError
from pipelit.store.meter import OnCommit, StoreStatistics, ignore_commit
from pipelit.store.reader import READ_TIMEOUT, READERS, Reader
from pipelit.store.writer import BATCH, CAPACITY, Hold, Writer

T = TypeVar("T")


PATIENT_PAUSE = 0.5
"""Seconds between two tries of a patient read."""


class Store:
    """Writes through one connection, many units per transaction; reads beside it, on snapshots.

    Belongs to one Trio run. Writes wait until somebody runs `run`; reads work at once.

    Args:
        hold: entered around all real work in threads; tests stop the mock clock with it.
        capacity: units that may wait before `StoreBusy`.
        batch: most units in one transaction.
        readers: threads and connections for queries.
        read_timeout: seconds a query may take.
        on_commit: told after each transaction how many units it had and how long it took.
    """

    def __init__(
        self,
        url: URL,
        *,
        hold: Hold = nullcontext,
        capacity: int = CAPACITY,
        batch: int = BATCH,
        readers: int = READERS,
        read_timeout: float = READ_TIMEOUT,
        on_commit: OnCommit = ignore_commit,
    ) -> None:
        self.is_shared = url.get_backend_name() != "sqlite"
        """Whether other servers may use the database too."""
        self._write_engine = open_engine(url, Purpose.WRITE)
        self._read_engine = open_engine(url, Purpose.READ, size=readers)
        self._committer = Committer(self._write_engine)
        self._writer = Writer(
            self._committer, hold=hold, capacity=capacity, batch=batch, on_commit=on_commit
        )
        self._reader = Reader(self._read_engine, hold=hold, size=readers, timeout=read_timeout)

    async def write(self, unit: Unit[T], key: str | None = None, *, patient: bool = False) -> T:
        """Run *unit* in a transaction and return what it returned, once that is on disk.

        What the unit raises is raised here, and the unit has left nothing behind. Cancelling a
        unit that still waits takes it back; one that is being committed is waited for.

        Args:
            unit: may run more than once; see `Unit`.
            key: units of one key are committed in the order of their calls. With one writer all
                units are; the key says what a caller relies on.
            patient: wait while storage is full or read-only instead of raising. For executions,
                which pause and go on. Contract: operations.md §5.

        Raises:
            StorageUnavailable: not committed, storage takes no writes (never when patient).
            StoreBusy: not committed, too many units wait.
            StoreClosed: not committed, the writer has ended.
            CommitUncertain: PostgreSQL only, the connection broke at the worst moment.
        """
        return await self._writer.write(unit, patient=patient)

    async def read(
        self, query: Unit[T], *, timeout: float | None = None, patient: bool = False
    ) -> T:
        """Run *query* on one snapshot of what is committed and return what it returned.

        Cancelling abandons it at once.

        Args:
            query: only reads, and returns plain values: rows are fetched before it returns.
            timeout: seconds for one try; None means the store's own.
            patient: try again until the database answers. For what must happen, however late.

        Raises:
            StorageUnavailable: the database does not answer (never when patient).
            ReadTimeout: the deadline passed (never when patient).
        """
        while True:
            try:
                return await self._reader.read(query, timeout=timeout)
            except (StorageUnavailable, ReadTimeout):
                if not patient:
                    raise
            await trio.sleep(PATIENT_PAUSE)

    async def run(self) -> None:
        """Be the writer, until cancelled or stopped. May be called again after it ended.

        A batch being committed is always finished. After a crash what is queued waits for the
        next call; after any other end it is answered with `StoreClosed`.
        """
        await self._writer.run()

    def stop(self) -> None:
        """Let `run` end when everything queued is committed."""
        self._writer.stop()

    async def check(self) -> bool:
        """Tell whether a trivial query succeeds and the last write was not refused by storage.

        Contract: health.md. The caller sets the deadline.
        """
        if not self._writer.storage_ok:
            return False
        try:
            await self.read(lambda connection: connection.scalar(text("SELECT 1")))
        except (StoreError, DBAPIError):
            return False
        return True

    def statistics(self) -> StoreStatistics:
        """Describe the writer now."""
        return self._writer.statistics()

    def close(self) -> None:
        """Close the connections. Call it when neither `run` nor a read is under way."""
        self._committer.close()
        self._write_engine.dispose()
        self._read_engine.dispose()

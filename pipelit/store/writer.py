"""The queue in front of the one writing connection, and the loop that empties it in batches."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias, TypeVar, cast

import outcome
import structlog
import trio

from pipelit.store.commit import AnyUnit, Committer, Result, Unit
from pipelit.store.errors import (
    CommitUncertain,
    StorageUnavailable,
    StoreBusy,
    StoreClosed,
    StoreError,
)
from pipelit.store.meter import Meter, OnCommit, StoreStatistics, ignore_commit

T = TypeVar("T")
_log = structlog.get_logger(__name__)

Hold: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Entered around real work in threads, so that a test's clock does not run ahead of it."""

BATCH = 256
CAPACITY = 10_000
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0)  # seconds between attempts while storage refuses


class _Ticket:
    """A caller waiting for its unit. In the queue it may leave; taken out it will be answered."""

    __slots__ = ("patient", "task", "unit")

    def __init__(self, unit: AnyUnit, *, patient: bool) -> None:
        self.unit = unit
        self.patient = patient
        self.task = trio.lowlevel.current_task()

    def answer(self, result: Result) -> None:
        trio.lowlevel.reschedule(self.task, result)


class Writer:
    """Commits units in the order of their calls, many at a time.

    A ticket is in the queue or in flight until it is answered, exactly once.
    """

    def __init__(
        self,
        committer: Committer,
        *,
        hold: Hold,
        capacity: int = CAPACITY,
        batch: int = BATCH,
        on_commit: OnCommit = ignore_commit,
    ) -> None:
        self._committer = committer
        self._hold = hold
        self._capacity = capacity
        self._batch = batch
        self._limiter = trio.CapacityLimiter(1)
        self._meter = Meter(on_commit)
        self._queue: OrderedDict[_Ticket, None] = OrderedDict()
        self._in_flight: list[_Ticket] = []
        self._wake = trio.Event()
        self._running = False
        self._stopping = False
        self._closed = False
        self._refusals = 0  # attempts in a row that storage refused
        self._waiting_since: float | None = None  # start of the wait, or the last commit during it

    async def write(self, unit: Unit[T], *, patient: bool = False) -> T:
        """Queue *unit* and wait until it is durable.

        Cancelling takes a unit that still waits out of the queue; one already taken is waited for.
        Either way it is committed completely or not at all.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise StoreClosed
        if len(self._queue) >= self._capacity:
            raise StoreBusy
        ticket = _Ticket(unit, patient=patient)
        self._queue[ticket] = None
        if self._waiting_since is None:
            self._waiting_since = trio.current_time()
        self._wake.set()

        def abort(_: object) -> trio.lowlevel.Abort:
            if ticket not in self._queue:
                return trio.lowlevel.Abort.FAILED
            del self._queue[ticket]
            return trio.lowlevel.Abort.SUCCEEDED

        return cast("T", await trio.lowlevel.wait_task_rescheduled(abort))

    async def run(self) -> None:
        """Commit what is queued until cancelled, or until `stop` and an empty queue.

        However it ends, the batch being committed is finished and answered first. After a crash
        the queue stays as it is for the next call of `run`; after any other end its callers get
        `StoreClosed`.

        Raises:
            StoreCorrupted: only a restored backup helps.
        """
        if self._running:
            raise RuntimeError("the writer is running already")
        self._running, self._closed = True, False
        crashed = False
        try:
            while self._queue or not self._stopping:
                await self._wait_for_work()
                await self._commit_batch()
        except Exception:
            crashed = True
            raise
        finally:
            self._running = False
            if not crashed:
                self._close()

    def stop(self) -> None:
        """Let `run` end once the queue is empty. Units are taken until then."""
        self._stopping = True
        self._wake.set()

    def statistics(self) -> StoreStatistics:
        """Describe the writer now."""
        waiting, meter = self._waiting_since, self._meter
        return StoreStatistics(
            queue_depth=len(self._queue) + len(self._in_flight),
            queue_capacity=self._capacity,
            commits=meter.commits,
            units=meter.units,
            failed_units=meter.failed_units,
            commit_seconds_total=meter.commit_seconds_total,
            batch_sizes=tuple(meter.batch_sizes),
            commit_seconds=tuple(meter.commit_seconds),
            stalled_seconds=0.0 if waiting is None else trio.current_time() - waiting,
            storage_ok=self.storage_ok,
        )

    @property
    def storage_ok(self) -> bool:
        """Whether the last attempt to commit was not refused by storage."""
        return self._refusals == 0

    async def _wait_for_work(self) -> None:
        if self._queue or self._stopping:
            await trio.lowlevel.checkpoint()
            return
        self._waiting_since = None
        self._wake = trio.Event()
        await self._wake.wait()

    async def _commit_batch(self) -> None:
        while self._queue and len(self._in_flight) < self._batch:
            self._in_flight.append(self._queue.popitem(last=False)[0])
        if not self._in_flight:
            return
        try:
            results, seconds = await self._commit_in_thread([t.unit for t in self._in_flight])
        except StorageUnavailable as error:
            self._defer(error)
            await trio.sleep(_PAUSES[min(self._refusals, len(_PAUSES)) - 1])
        except CommitUncertain as error:
            self._answer([outcome.Error(CommitUncertain(str(error))) for _ in self._in_flight])
        except BaseException as error:
            # Nobody planned this: the callers learn that it went wrong, the supervisor decides.
            self._answer([outcome.Error(_as_failure(error)) for _ in self._in_flight])
            raise
        else:
            failed = sum(isinstance(result, outcome.Error) for result in results)
            self._meter.count(units=len(results), failed=failed, seconds=seconds)
            if self._refusals:
                _log.info("storage_writable_again", refused_attempts=self._refusals)
                self._refusals = 0
            self._waiting_since = trio.current_time()
            self._answer(results)

    async def _commit_in_thread(self, units: Sequence[AnyUnit]) -> tuple[list[Result], float]:
        def commit() -> tuple[list[Result], float]:
            start = time.perf_counter()
            results = self._committer.commit(units)
            return results, time.perf_counter() - start

        # Shielded: its deadlines are the database's, and its outcome has to be told.
        with trio.CancelScope(shield=True), self._hold():
            results, seconds = await trio.to_thread.run_sync(commit, limiter=self._limiter)
        return results, seconds

    def _answer(self, results: Sequence[Result]) -> None:
        tickets, self._in_flight = self._in_flight, []
        for ticket, result in zip(tickets, results, strict=True):
            ticket.answer(result)

    def _defer(self, error: StorageUnavailable) -> None:
        """Refuse the impatient of a batch that storage did not take; the others are next again."""
        if not self._refusals:
            _log.error("storage_not_writable", error=str(getattr(error.__cause__, "orig", error)))
        self._refusals += 1
        tickets, self._in_flight = self._in_flight, []
        for ticket in reversed(tickets):
            if ticket.patient:
                self._queue[ticket] = None
                self._queue.move_to_end(ticket, last=False)
            else:
                ticket.answer(outcome.Error(StorageUnavailable()))

    def _close(self) -> None:
        self._closed, self._stopping = True, False
        self._waiting_since = None
        while self._queue:
            self._queue.popitem(last=False)[0].answer(outcome.Error(StoreClosed()))


def _as_failure(error: BaseException) -> StoreError:
    failure = type(error) if isinstance(error, StoreError) else StoreError
    return failure(f"the writer crashed: {error}")

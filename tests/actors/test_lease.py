"""A server may write only as long as its lease runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import trio

from pipelit.actors.leases import RENEW_EVERY, Lease
from pipelit.actors.runtime.restart import Restart
from pipelit.actors.runtime.testing import Kit, open_kit
from pipelit.store import Store
from pipelit.store.errors import StorageUnavailable
from pipelit.store.queries.journal import Owner


class Database:
    """Says what becomes of each renewal: kept, too late by so much, or no answer."""

    def __init__(self) -> None:
        self.answer: timedelta | Exception | None = None
        self.asked: list[float] = []

    async def write(self, unit: Any) -> Any:
        self.asked.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@asynccontextmanager
async def leased(database: Database, *, shared: bool) -> AsyncIterator[tuple[Kit, Any]]:
    async with open_kit() as kit:
        store = cast("Store", database)
        yield (
            kit,
            kit.spawn(
                lambda: Lease(store, Owner("server", 1), shared=shared), restart=Restart.TEMPORARY
            ),
        )


async def test_it_is_renewed_every_five_seconds() -> None:
    """On a database that others may use."""
    database = Database()

    async with leased(database, shared=True):
        began = trio.current_time()
        await trio.sleep(16.0)

        assert [round(at - began) for at in database.asked] == [5, 10, 15]


async def test_a_file_needs_no_renewals() -> None:
    """Its lock says all there is to say; only the end is written."""
    database = Database()

    async with leased(database, shared=False) as (_, lease):
        await trio.sleep(100.0)
        assert database.asked == []

        lease.stop()
        await lease.wait_stopped()
        assert len(database.asked) == 1


async def test_a_lost_lease_is_a_crash() -> None:
    """The server must not go on, and the stream says why."""
    database = Database()
    async with leased(database, shared=True) as (kit, lease):
        await trio.sleep(RENEW_EVERY + 1)
        database.answer = timedelta(seconds=1.5)
        await trio.sleep(RENEW_EVERY)

        assert not lease.is_alive()
        (lost,) = kit.records(lease, "lease_lost")
        assert lost.detail == {"late_ms": 1500}
        assert kit.records(lease, "actor_crashed")


async def test_a_database_that_does_not_answer_is_asked_again() -> None:
    """The next renewal tells whether the lease has outlived it."""
    database = Database()
    async with leased(database, shared=True) as (_, lease):
        database.answer = StorageUnavailable()
        await trio.sleep(2 * RENEW_EVERY + 1)
        database.answer = None
        await trio.sleep(RENEW_EVERY)

        assert lease.is_alive()
        assert len(database.asked) == 3

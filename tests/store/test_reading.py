"""What a caller of `Store.read` may rely on, on both databases."""

from contextlib import closing

import pytest
import trio
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from pipelit.store import ReadTimeout, StorageUnavailable, Store
from tests.store.items import add, names

ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
)


async def test_a_query_works_on_one_snapshot(store: Store) -> None:
    """A commit between two statements of a query is invisible to it, and visible to the next."""
    await store.write(add("a"))

    def twice(conn: Connection) -> tuple[list[str], list[str]]:
        before = names(conn)
        trio.from_thread.run(store.write, add("b"))
        return before, names(conn)

    assert await store.read(twice) == (["a"], ["a"])
    assert await store.read(names) == ["a", "b"]


async def test_a_query_cannot_write(store: Store) -> None:
    """The database refuses changes on a reading connection."""
    with pytest.raises(DBAPIError, match=r"readonly|read-only"):
        await store.read(add("a"))

    assert await store.read(names) == []


async def test_an_error_of_a_query_reaches_its_caller(store: Store) -> None:
    """What a query raises is raised by `read`, and the connection stays usable."""
    with pytest.raises(DBAPIError, match="nothing"):
        await store.read(lambda conn: conn.execute(text("SELECT * FROM nothing")))

    assert await store.read(names) == []


async def test_reads_work_without_a_writer(idle_store: Store) -> None:
    """Queries need no running writer and are not kept waiting by one that is busy."""
    assert await idle_store.read(names) == []


async def test_a_query_past_its_deadline_is_abandoned(sqlite_url: URL) -> None:
    """The caller gets `ReadTimeout`, and SQLite stops working on the query: the thread is free."""
    with closing(Store(sqlite_url, readers=1)) as store:
        with pytest.raises(ReadTimeout):
            await store.read(lambda conn: conn.scalar(ENDLESS), timeout=0.05)

        assert await store.read(lambda conn: conn.scalar(text("SELECT 1")), timeout=10) == 1


async def test_a_patient_read_is_tried_until_the_database_answers(sqlite_url: URL) -> None:
    """Trouble of the database costs it time, nothing else."""
    troubles = [ReadTimeout(), StorageUnavailable()]

    def query(conn: Connection) -> int | None:
        if troubles:
            raise troubles.pop()
        return conn.scalar(text("SELECT 1"))

    with closing(Store(sqlite_url, readers=1)) as store:
        assert await store.read(query, patient=True) == 1


async def test_a_cancelled_read_returns_at_once(sqlite_url: URL) -> None:
    """Cancelling does not wait for the query."""
    with closing(Store(sqlite_url, readers=1)) as store:
        with trio.move_on_after(0.05) as scope:
            await store.read(lambda conn: conn.scalar(ENDLESS))

        assert scope.cancelled_caught
        assert await store.read(lambda conn: conn.scalar(text("SELECT 1")), timeout=10) == 1


async def test_the_check_answers_while_a_commit_is_under_way(idle_store: Store) -> None:
    """A health check neither waits for the writer nor fails because of it."""
    entered, opened = trio.Event(), trio.Event()

    def slow(conn: Connection) -> None:
        add("slow")(conn)
        trio.from_thread.run_sync(entered.set)
        trio.from_thread.run(opened.wait)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_store.run)
        nursery.start_soon(idle_store.write, slow)
        await entered.wait()

        healthy = await idle_store.check()
        opened.set()
        idle_store.stop()

    assert healthy

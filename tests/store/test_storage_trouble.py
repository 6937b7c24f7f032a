"""What happens when the database takes no writes, breaks off, or is damaged."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import outcome
import pytest
import trio
import trio.testing
from sqlalchemy import URL, Connection, event, text, update
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from pipelit.store import (
    CommitUncertain,
    StorageUnavailable,
    Store,
    StoreCorrupted,
    StoreError,
    Unit,
)
from pipelit.store.commit import AnyUnit, Committer, Result
from pipelit.store.database import Purpose, open_engine
from pipelit.store.writer import Writer
from tests.kit.store import hold_of, running_store
from tests.store.items import add, items, names


class Disk:
    """Makes an SQLite store's writing connection meet a full or read-only disk."""

    def __init__(self, store: Store) -> None:
        self.pragma = "PRAGMA user_version"
        event.listen(store._write_engine, "connect", self._on_connect)

    def fill(self) -> None:
        # Any small number: SQLite takes the present size if that is larger.
        self.pragma = "PRAGMA max_page_count = 1"

    def protect(self) -> None:
        self.pragma = "PRAGMA query_only = ON"

    def heal(self) -> None:
        self.pragma = "PRAGMA user_version"

    def _on_connect(self, connection: object, record: object) -> None:
        connection.execute(self.pragma).close()  # type: ignore[attr-defined]


def add_big(name: str) -> Unit[str]:
    """Return a unit that needs new pages."""

    def unit(conn: Connection) -> str:
        conn.exec_driver_sql("CREATE TABLE IF NOT EXISTS big (body TEXT)")
        conn.execute(text("INSERT INTO big VALUES (:body)"), {"body": "x" * 100_000})
        return add(name)(conn)

    return unit


@pytest.mark.parametrize("trouble", ["fill", "protect"])
async def test_requests_are_refused_and_executions_wait_until_storage_returns(
    sqlite_items: URL, autojump_clock: MockClock, trouble: str
) -> None:
    """Without space a plain write fails at once; a patient one goes on when space returns."""
    async with running_store(sqlite_items, hold=hold_of(autojump_clock)) as store:
        disk = Disk(store)
        getattr(disk, trouble)()
        done: list[str] = []

        async def execution() -> None:
            done.append(await store.write(add_big("patient"), patient=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(execution)
            with pytest.raises(StorageUnavailable, match=r"^Storage is not available\.$"):
                await store.write(add_big("hasty"))
            await trio.sleep(60)
            assert done == []
            assert not await store.check()
            assert not store.statistics().storage_ok
            assert store.statistics().stalled_seconds >= 60

            disk.heal()

        assert done == ["patient"]
        assert await store.read(names) == ["patient"]
        assert await store.check()
        assert store.statistics().stalled_seconds == 0


async def test_a_patient_unit_can_be_cancelled_while_storage_is_full(
    sqlite_items: URL, autojump_clock: MockClock
) -> None:
    """Between two attempts a waiting caller may leave; its unit is never committed."""
    async with running_store(sqlite_items, hold=hold_of(autojump_clock)) as store:
        disk = Disk(store)
        disk.fill()
        with trio.move_on_after(30) as scope:
            await store.write(add_big("left"), patient=True)
        disk.heal()
        await store.write(add("other"))

        assert scope.cancelled_caught
        assert await store.read(names) == ["other"]


async def test_another_process_that_holds_the_lock_makes_storage_unavailable(
    sqlite_items: URL, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign writer, a backup tool for example, delays a write, then refuses it."""
    monkeypatch.setattr("pipelit.store.database.BUSY_TIMEOUT", 0.01)
    foreign = open_engine(sqlite_items, Purpose.WRITE)
    async with running_store(sqlite_items, hold=hold_of(autojump_clock)) as store:
        with foreign.begin(), pytest.raises(StorageUnavailable):
            await store.write(add("a"))

        assert await store.write(add("b")) == "b"
    foreign.dispose()


async def test_a_crash_keeps_the_queue_for_the_next_run(sqlite_items: URL) -> None:
    """A crash fails the batch under way; who waits is served by the next incarnation."""
    crash = [RuntimeError("no reason")]

    @contextmanager
    def hold() -> Iterator[None]:
        if crash:
            raise crash.pop()
        yield

    with closing(Store(sqlite_items, hold=hold, batch=1)) as store:
        async with trio.open_nursery() as nursery:

            async def unlucky() -> None:
                with pytest.raises(StoreError, match="no reason"):
                    await store.write(add("unlucky"))

            nursery.start_soon(unlucky)
            await wait_all_tasks_blocked()
            nursery.start_soon(store.write, add("lucky"))
            await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="no reason"):
                await store.run()
            store.stop()
            await store.run()

        assert await store.read(names) == ["lucky"]


async def test_a_unit_that_ends_the_thread_leaves_no_open_transaction(sqlite_items: URL) -> None:
    """Even `SystemExit` inside a unit rolls back, so the next incarnation can write."""

    def unit(conn: Connection) -> None:
        add("half")(conn)
        raise SystemExit("a component called exit()")

    with closing(Store(sqlite_items)) as store:
        async with trio.open_nursery() as nursery:

            async def unlucky() -> None:
                with pytest.raises(StoreError, match=r"called exit"):
                    await store.write(unit)

            nursery.start_soon(unlucky)
            await wait_all_tasks_blocked()
            with pytest.raises(SystemExit):
                await store.run()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await wait_all_tasks_blocked()
            await store.write(add("whole"))
            store.stop()

        assert await store.read(names) == ["whole"]


def damage(url: URL) -> None:
    """Overwrite everything but the header of an SQLite file."""
    path = Path(url.database or "")
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192)


async def test_a_damaged_file_ends_the_writer(sqlite_items: URL) -> None:
    """Corruption reaches the caller and the supervisor: no restart would help."""
    damage(sqlite_items)

    with closing(Store(sqlite_items)) as store:
        async with trio.open_nursery() as nursery:

            async def caller() -> None:
                with pytest.raises(StoreCorrupted):
                    await store.write(add("a"))

            nursery.start_soon(caller)
            await wait_all_tasks_blocked()
            with pytest.raises(StoreCorrupted, match="damaged"):
                await store.run()
        with pytest.raises(StoreCorrupted):
            await store.read(names)


def kill_backends(url: URL) -> None:
    """End every other connection to the database of *url*, as a restart of the server does."""
    engine = open_engine(url, Purpose.MIGRATE)
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


async def test_a_lost_connection_is_replaced(postgres_items: URL) -> None:
    """When PostgreSQL ended the connections, the next write and read open new ones."""
    async with running_store(postgres_items) as store:
        await store.write(add("a"))
        await store.read(names)
        await trio.to_thread.run_sync(kill_backends, postgres_items)

        await store.write(add("b"))
        assert await store.read(names) == ["a", "b"]
        await trio.to_thread.run_sync(kill_backends, postgres_items)
        assert await store.read(names) == ["a", "b"]


async def test_a_commit_that_never_arrived_is_repeated(postgres_items: URL) -> None:
    """A connection that broke before the commit: the units run again, once."""
    async with running_store(postgres_items) as store:
        broken: list[bool] = []

        def on_commit(connection: Connection) -> None:
            if not broken:
                broken.append(True)
                kill_backends(postgres_items)

        event.listen(store._write_engine, "commit", on_commit)
        await store.write(add("a"))

        assert await store.read(names) == ["a"]


def lose_the_answer(store: Store) -> None:
    """Let the next commit succeed in the database and its answer get lost."""
    lost: list[bool] = []

    def on_commit(connection: Connection) -> None:
        if not lost:
            lost.append(True)
            raw = connection.connection.driver_connection
            raw.commit()  # type: ignore[union-attr]
            raw.close()  # type: ignore[union-attr]

    event.listen(store._write_engine, "commit", on_commit)


async def test_a_commit_whose_answer_got_lost_is_not_repeated(postgres_items: URL) -> None:
    """The database is asked what became of the transaction, and every caller gets its result."""
    async with running_store(postgres_items) as store:
        lose_the_answer(store)

        assert await store.write(add("a")) == "a"
        assert await store.read(names) == ["a"]


async def test_a_commit_nobody_knows_about_is_uncertain(
    postgres_items: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the database cannot say what became of the commit, the caller is told just that."""
    monkeypatch.setattr("pipelit.store.commit._ASK_SECONDS", 0.0)
    async with running_store(postgres_items) as store:
        lose_the_answer(store)

        with pytest.raises(CommitUncertain):
            await store.write(add("a"))

        assert await store.write(add("b")) == "b"


async def test_no_server_is_unavailable_storage(postgres_items: URL) -> None:
    """A PostgreSQL that does not answer refuses reads and writes as `StorageUnavailable`."""
    async with running_store(postgres_items.set(port=1)) as store:
        with pytest.raises(StorageUnavailable):
            await store.write(add("a"))
        with pytest.raises(StorageUnavailable):
            await store.read(names)
        assert not await store.check()


async def test_a_statement_past_its_time_limit_fails_alone(
    postgres_items: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit with an endless statement is guilty, not the storage: others go on."""
    monkeypatch.setattr("pipelit.store.database._POSTGRES_SETTINGS", ("SET statement_timeout=50",))
    async with running_store(postgres_items) as store:
        with pytest.raises(Exception, match="statement timeout"):
            await store.write(lambda conn: conn.execute(text("SELECT pg_sleep(10)")) and None)

        assert await store.write(add("b")) == "b"


@pytest.mark.slow
async def test_a_deadlock_between_two_servers_is_resolved(postgres_items: URL) -> None:
    """Batches of two servers that block each other both end up committed."""

    def both(first: int, second: int, mine: trio.Event, other: trio.Event) -> Unit[None]:
        def unit(conn: Connection) -> None:
            change = update(items).values(name=items.c.name + "!")
            conn.execute(change.where(items.c.position == first))
            trio.from_thread.run_sync(mine.set)
            trio.from_thread.run(other.wait)
            conn.execute(change.where(items.c.position == second))

        return unit

    async with running_store(postgres_items) as one, running_store(postgres_items) as two:
        await one.write(add("a"))
        await one.write(add("b"))
        left, right = trio.Event(), trio.Event()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write, both(1, 2, left, right))
            nursery.start_soon(two.write, both(2, 1, right, left))

        assert await one.read(names) == ["a!!", "b!!"]


async def test_the_operator_is_told_once_and_without_values(
    sqlite_items: URL, autojump_clock: MockClock
) -> None:
    """Refusing storage is one log line with the database's reason, its return another."""
    with capture_logs() as logs:
        async with running_store(sqlite_items, hold=hold_of(autojump_clock)) as store:
            disk = Disk(store)
            disk.fill()
            with trio.move_on_after(30):
                await store.write(add_big("secret"), patient=True)
            disk.heal()
            await store.write(add("a"))

    assert [entry["event"] for entry in logs] == ["storage_not_writable", "storage_writable_again"]
    assert logs[0]["error"] == "database or disk is full"


async def test_errors_hold_no_values(sqlite_items: URL) -> None:
    """The text of a database error names the statement, never what was to be stored."""
    async with running_store(sqlite_items) as store:
        await store.write(add("secret"))

        with pytest.raises(DBAPIError) as caught:
            await store.write(add("secret"))

    assert "INSERT INTO items" in str(caught.value)
    assert "secret" not in str(caught.value)


class _NoStorage(Committer):
    """A committer whose database refuses for a while."""

    def __init__(self, refusals: int) -> None:
        self.left = refusals

    def commit(self, units: Sequence[AnyUnit]) -> list[Result]:
        if self.left:
            self.left -= 1
            raise StorageUnavailable
        return [outcome.Value("done") for _ in units]


async def test_a_long_outage_ends_nothing(autojump_clock: MockClock) -> None:
    """After thousands of refused attempts the writer still tries, about once in a second."""
    writer = Writer(_NoStorage(1500), hold=hold_of(autojump_clock))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        assert await writer.write(add("a"), patient=True) == "done"
        writer.stop()

    assert 1400 < trio.current_time() - began < 1600

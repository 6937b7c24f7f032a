"""What is to be done after an execution, who sent a message, which requests were made before.

On both databases. Contract: engine.md §10.6, README.md §3, beyond.md §4.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Connection, insert, select

from pipelit.store import Store, schema
from pipelit.store.database import Purpose, open_engine
from pipelit.store.queries import contacts, dispatches, executions
from tests.kit.store import running_store

START = datetime(2026, 2, 3, 8, 15, tzinfo=UTC)
KIND = dispatches.DELIVERY


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
async def store(url: URL) -> AsyncIterator[Store]:
    """A store with user 1 and their workflow 1."""
    engine = open_engine(url, Purpose.MIGRATE)
    with engine.begin() as conn:
        schema.metadata.create_all(conn)
        user = {"username": "ada", "created_at": START}
        conn.execute(insert(schema.users).values(**user))
        flow = {"owner_id": 1, "name": "f", "slug": "f", "created_at": START, "updated_at": START}
        conn.execute(insert(schema.workflows).values(**flow))
    engine.dispose()
    async with running_store(url) as running:
        yield running


def execution(name: str, **more: Any) -> executions.NewExecution:
    values: dict[str, Any] = {
        "id": name,
        "workflow_id": 1,
        "trigger_node_id": "t",
        "user_id": 1,
        "thread_id": name,
        "serial": False,
        "source": "gateway",
        "trigger_payload": {},
        "trigger": {"chat_id": name},
        "limit_seconds": 900,
        "created_at": START,
    }
    return executions.NewExecution(**(values | more))


async def add(store: Store, *names: str, due_at: datetime = START) -> None:
    def unit(conn: Connection) -> None:
        for name in names:
            executions.create(conn, execution(name))
            dispatches.add(conn, name, [KIND], due_at=due_at)

    await store.write(unit)


async def take(store: Store, seconds: float, *, limit: int = 10) -> dict[str, int]:
    """Take what is due for 40 s; return {execution: attempts}."""
    now = after(seconds)
    until = now + timedelta(seconds=40)
    taken = await store.write(
        lambda conn: dispatches.take_due(conn, KIND, now=now, until=until, limit=limit)
    )
    return {one.execution_id: one.attempts for one in taken}


async def next_due(store: Store) -> datetime | None:
    return await store.read(lambda conn: dispatches.next_due(conn, KIND))


async def test_what_is_taken_comes_up_again_unless_it_is_finished(store: Store) -> None:
    """A crash between the two delays it, and loses nothing."""
    await add(store, "a", "b")
    assert await take(store, 0) == {"a": 1, "b": 1}
    await store.write(lambda conn: dispatches.finish(conn, KIND, "a"))

    assert await take(store, 39) == {}
    assert await next_due(store) == after(40)
    assert await take(store, 40) == {"b": 2}

    await store.write(lambda conn: dispatches.finish(conn, KIND, "b"))
    assert await next_due(store) is None
    assert await take(store, 10_000) == {}


async def test_the_longest_waiting_come_first(store: Store) -> None:
    """As many as there is room for, and nothing before its time."""
    await add(store, "c", due_at=after(3))
    await add(store, "b", due_at=after(2))
    await add(store, "a", due_at=after(9))

    assert await take(store, 5, limit=1) == {"b": 1}
    assert await take(store, 5, limit=5) == {"c": 1}


async def test_a_postponed_one_waits(store: Store) -> None:
    """Until its new time."""
    await add(store, "a")
    await take(store, 0)
    await store.write(lambda conn: dispatches.postpone(conn, KIND, "a", due_at=after(2)))

    assert await take(store, 1) == {}
    assert await take(store, 2) == {"a": 2}


async def test_deleting_an_execution_takes_its_dispatches_along(store: Store) -> None:
    """Nothing is sent for what is not there."""
    await add(store, "a")

    def end_and_delete(conn: Connection) -> None:
        done = schema.executions.update().values(status="completed")
        conn.execute(done)
        executions.delete_ended(conn, ["a"])

    await store.write(end_and_delete)

    assert await next_due(store) is None


async def test_a_key_counts_for_a_day(store: Store) -> None:
    """From its first use; then the same key starts something new, and counts for another day."""

    async def start(name: str, hours: float) -> str | None:
        used = executions.Idempotency(key="k", fingerprint="f", status=200, body={"id": name})
        new = execution(name, created_at=after(hours * 3600))
        replay = await store.write(lambda conn: executions.create(conn, new, idempotency=used))
        return None if replay is None else str(replay.body["id"])

    assert await start("a", 0) is None
    assert await start("b", 23.9) == "a"
    assert await start("c", 24) is None
    assert await start("d", 47.9) == "c"
    stored = await store.read(lambda conn: list(conn.scalars(select(schema.executions.c.id))))
    assert sorted(stored) == ["a", "c"]


async def test_contacts_are_found_again_and_get_free_names(store: Store) -> None:
    """By external id; those without one share an account, whoever else has its name."""

    async def ensure(external_id: str | None, username: str) -> tuple[int, str]:
        def unit(conn: Connection) -> tuple[int, str]:
            user_id = contacts.ensure_contact(conn, external_id, username, created_at=START)
            wanted = select(schema.users.c.username).where(schema.users.c.id == user_id)
            return user_id, str(conn.scalar(wanted))

        return await store.write(unit)

    long = "x" * 200
    first = await ensure("7", "ada")
    assert first[1] == "ada_1"
    assert await ensure("7", "other") == first
    assert (await ensure("8", "ada"))[1] == "ada_2"
    assert (await ensure("9", long))[1] == "x" * 150
    assert (await ensure("10", long))[1] == "x" * 148 + "_1"
    assert (await ensure("11", "gateway_anonymous"))[1] == "gateway_anonymous"
    shared = await ensure(None, "gateway_anonymous")
    assert shared[1] == "gateway_anonymous_1"
    assert await ensure(None, "gateway_anonymous") == shared

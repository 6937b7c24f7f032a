"""The last admin stays one on a database that several servers use. Contract: beyond.md §8."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import trio
from sqlalchemy import URL, Connection, Engine, insert, text

from pipelit.store import schema
from pipelit.store.database import Purpose, open_engine
from pipelit.store.queries import users
from tests.kit.waiting import until

NOW = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def engines(postgres_url: URL) -> Iterator[tuple[Engine, Engine]]:
    """The writers of two servers on a PostgreSQL with two admins."""
    one, two = (open_engine(postgres_url, Purpose.WRITE) for _ in range(2))
    with one.begin() as conn:
        schema.metadata.create_all(conn)
        for name in ("ada", "eve"):
            row = {"username": name, "role": "admin", "created_at": NOW}
            conn.execute(insert(schema.users).values(**row))
    yield one, two
    one.dispose()
    two.dispose()


def is_awaited(conn: Connection) -> bool:
    """Whether another transaction waits for the end of the one of *conn*."""
    query = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        " AND transactionid = CAST(CAST(pg_current_xact_id() AS text) AS xid)"
    )
    return bool(conn.scalar(text(query)))


@pytest.mark.slow
async def test_two_servers_cannot_take_the_last_two_admins_away(
    engines: tuple[Engine, Engine],
) -> None:
    """The second transaction waits for the first and sees what it did."""
    one, two = engines
    outcomes: list[bool] = []

    def ask_about_eve() -> None:
        with two.begin() as conn:
            outcomes.append(users.is_last_admin(conn, 2))

    async with trio.open_nursery() as nursery:
        with one.begin() as conn:
            assert not users.is_last_admin(conn, 1)
            users.update_user(conn, 1, {"role": "normal"})
            nursery.start_soon(trio.to_thread.run_sync, ask_about_eve)
            await until(lambda: is_awaited(conn))

    assert outcomes == [True]

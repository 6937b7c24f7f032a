"""Epochs and leases. Contract: engine.md §10.7."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, Connection, literal, select, update

from pipelit.store import schema
from pipelit.store.database import Purpose, open_engine
from pipelit.store.queries import meta
from pipelit.store.queries.servers import (
    LEASE,
    database_now,
    lateness,
    list_servers,
    live_server,
    register_server,
    release_server,
    renew_lease,
)


@pytest.fixture
def conn(url: URL) -> Iterator[Connection]:
    """A transaction on a database with the schema."""
    engine = open_engine(url, Purpose.WRITE)
    with engine.connect() as connection, connection.begin() as transaction:
        schema.metadata.create_all(connection, tables=[schema.meta, schema.servers])
        yield connection
        transaction.rollback()
    engine.dispose()


def is_live(conn: Connection, node_id: str, epoch: int) -> bool:
    return bool(conn.scalar(select(live_server(literal(node_id), literal(epoch)))))


def read_clock(conn: Connection) -> datetime:
    return conn.execute(select(database_now())).scalar_one()


def expire(conn: Connection, node_id: str) -> None:
    past = database_now(plus=timedelta(seconds=-1))
    conn.execute(
        update(schema.servers).where(schema.servers.c.node_id == node_id).values(lease_until=past)
    )


def test_epochs_grow_over_all_servers(conn: Connection) -> None:
    """Every registration gets a higher epoch than any before, whoever asks."""
    epochs = [register_server(conn, node_id) for node_id in ("a", "b", "a", "c")]

    assert epochs == [1, 2, 3, 4]
    assert [server.node_id for server in list_servers(conn)] == ["c", "a", "b"]


def test_a_new_epoch_kills_the_old_one(conn: Connection) -> None:
    """A restarted server is alive under its new epoch only."""
    old = register_server(conn, "a")
    new = register_server(conn, "a")

    assert not is_live(conn, "a", old)
    assert is_live(conn, "a", new)
    assert not renew_lease(conn, "a", old)


def test_a_lease_lasts_from_the_databases_now(conn: Connection) -> None:
    """The lease runs out 15 s after its renewal."""
    epoch = register_server(conn, "a")

    assert renew_lease(conn, "a", epoch)

    now = read_clock(conn)
    (server,) = list_servers(conn)
    assert LEASE - timedelta(seconds=2) < server.lease_until - now <= LEASE
    assert server.live


def test_the_databases_clock_is_a_clock(conn: Connection) -> None:
    """`database_now` is the wall clock, in UTC."""
    now = read_clock(conn)

    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_lease_that_ran_out_is_lost_on_a_shared_database(conn: Connection) -> None:
    """PostgreSQL: others may have taken over, so it cannot be renewed. SQLite: nobody can have."""
    epoch = register_server(conn, "a")
    expire(conn, "a")

    assert not is_live(conn, "a", epoch)
    assert renew_lease(conn, "a", epoch) == (conn.dialect.name == "sqlite")


def test_a_lost_lease_is_late_by_the_databases_clock(conn: Connection) -> None:
    """As long as it has run out; a server that has begun again is not late at all."""
    old = register_server(conn, "a")
    expire(conn, "a")
    late = lateness(conn, "a", old)

    register_server(conn, "a")

    assert timedelta(seconds=1) <= late < timedelta(seconds=3)
    assert lateness(conn, "a", old) == timedelta(0)


def test_the_server_of_a_file_is_alive_without_a_lease(conn: Connection) -> None:
    """SQLite: the youngest that was not released. PostgreSQL: whose lease runs."""
    register_server(conn, "old")
    register_server(conn, "a")
    expire(conn, "old")
    expire(conn, "a")

    alive = [server.node_id for server in list_servers(conn) if server.live]

    assert alive == (["a"] if conn.dialect.name == "sqlite" else [])


def test_a_released_server_is_dead_at_once(conn: Connection) -> None:
    """An orderly stop ends the lease, and nothing renews it."""
    epoch = register_server(conn, "a")

    release_server(conn, "a", epoch)

    assert not is_live(conn, "a", epoch)
    assert not renew_lease(conn, "a", epoch)
    assert not list_servers(conn)[0].live


def test_values_are_set_and_replaced(conn: Connection) -> None:
    """`meta` keeps one value per key."""
    assert meta.find_value(conn, "k") is None

    meta.set_value(conn, "k", "1")
    meta.set_value(conn, "k", "2")

    assert meta.find_value(conn, "k") == "2"

"""Units per second of group commit against one transaction per unit, in the same run.

Usage: python ops/bench/store.py [--units N] [--tasks N] [--url URL]

A unit inserts a row of about 200 bytes. SQLite files are made in the working directory, for the
temporary directory may be memory. Compare the columns, not the figures of two machines.
"""

import argparse
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial

import trio
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, insert

from pipelit.store import Store
from pipelit.store.database import Purpose, open_engine, parse_database_url

_metadata = MetaData()
_rows = Table(
    "bench_rows",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("body", String(200), nullable=False),
)
_insert = insert(_rows).values(body="x" * 200)

Write = Callable[[], Awaitable[object]]


def unit(conn: Connection) -> None:
    conn.execute(_insert)


async def measure(write: Write, *, units: int, tasks: int) -> tuple[float, float, float]:
    """Return units per second and the median and 99th percentile of one write, in ms."""
    waits: list[float] = []

    async def client() -> None:
        for _ in range(units // tasks):
            start = time.perf_counter()
            await write()
            waits.append(time.perf_counter() - start)

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(client)
    elapsed = time.perf_counter() - start
    waits.sort()
    return len(waits) / elapsed, waits[len(waits) // 2] * 1000, waits[len(waits) * 99 // 100] * 1000


async def group_commit(address: str, *, units: int, tasks: int) -> tuple[float, float, float]:
    with closing(Store(parse_database_url(address))) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            result = await measure(partial(store.write, unit), units=units, tasks=tasks)
            store.stop()
    return result


async def transaction_per_unit(
    address: str, *, units: int, tasks: int
) -> tuple[float, float, float]:
    engine = open_engine(parse_database_url(address), Purpose.WRITE)
    limiter = trio.CapacityLimiter(1)

    def transaction() -> None:
        with engine.begin() as connection:
            unit(connection)

    result = await measure(
        partial(trio.to_thread.run_sync, transaction, limiter=limiter), units=units, tasks=tasks
    )
    engine.dispose()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--url", help="PostgreSQL instead of a new SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as directory:
        address = options.url or f"sqlite:///{directory}/bench.sqlite3"
        engine = open_engine(parse_database_url(address), Purpose.MIGRATE)
        _metadata.drop_all(engine)
        _metadata.create_all(engine)
        print(f"{options.tasks} tasks")
        print(f"{'':24}{'units/s':>10}{'p50 ms':>10}{'p99 ms':>10}")
        for name, way, share in (
            ("one transaction a unit", transaction_per_unit, 10),
            ("group commit", group_commit, 1),
        ):
            run = partial(way, address, units=options.units // share, tasks=options.tasks)
            rate, p50, p99 = trio.run(run)
            print(f"{name:24}{rate:10,.0f}{p50:10.1f}{p99:10.1f}")
        _metadata.drop_all(engine)
        engine.dispose()


if __name__ == "__main__":
    main()

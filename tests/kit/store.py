"""A running store on a fresh, fully migrated SQLite file.

Import the fixtures where they are wanted: `from tests.kit.store import migrated, store`.
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import pytest
import trio
import trio.testing
from sqlalchemy import URL

from pipelit.store import Store
from pipelit.store.database import Purpose, open_engine, parse_database_url
from pipelit.store.migrate import Migrations
from pipelit.store.writer import Hold


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the whole schema and no rows, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "template.sqlite3"
    engine = open_engine(parse_database_url(f"sqlite:///{path}"), Purpose.MIGRATE)
    Migrations().upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def store_url(migrated: Path, tmp_path: Path) -> URL:
    """The address of a fresh, migrated database of this test alone."""
    path = tmp_path / "db.sqlite3"
    shutil.copyfile(migrated, path)
    return parse_database_url(f"sqlite:///{path}")


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    """A store whose writer runs."""
    async with running_store(store_url) as running:
        yield running


@asynccontextmanager
async def running_store(url: URL, *, hold: Hold = nullcontext) -> AsyncIterator[Store]:
    """Run a store on *url*; at the end everything queued is committed and the files are closed."""
    store = Store(url, hold=hold)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store
        store.stop()
    store.close()


def hold_of(clock: trio.testing.MockClock) -> Hold:
    """Return a `hold` that keeps *clock* from jumping while a thread works."""
    held = 0
    threshold = clock.autojump_threshold

    @contextmanager
    def hold() -> Iterator[None]:
        nonlocal held
        held += 1
        clock.autojump_threshold = float("inf")
        try:
            yield
        finally:
            held -= 1
            if not held:
                clock.autojump_threshold = threshold

    return hold

"""Stores on both databases, with a small table of their own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL

from pipelit.store import Store
from pipelit.store.database import Purpose, open_engine, parse_database_url
from tests.kit.postgres import postgres_database, postgres_url
from tests.kit.store import migrated, running_store, store_url
from tests.store.items import metadata

__all__ = ["migrated", "postgres_database", "postgres_url", "store_url"]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    """The address of an SQLite file that is not there yet."""
    return parse_database_url(f"sqlite:///{tmp_path / 'db.sqlite3'}")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> URL:
    """The address of an empty database, once per kind of database."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    found: URL = request.getfixturevalue(name)
    return found


@pytest.fixture
def items_url(url: URL) -> URL:
    """A database with the table of `items.py`, once per kind of database."""
    return _with_items(url)


@pytest.fixture
def sqlite_items(sqlite_url: URL) -> URL:
    """An SQLite file with the table of `items.py`."""
    return _with_items(sqlite_url)


@pytest.fixture
def postgres_items(postgres_url: URL) -> URL:
    """A PostgreSQL schema with the table of `items.py`."""
    return _with_items(postgres_url)


def _with_items(url: URL) -> URL:
    engine = open_engine(url, Purpose.MIGRATE)
    with engine.begin() as connection:
        metadata.create_all(connection)
    engine.dispose()
    return url


@pytest.fixture
def idle_store(items_url: URL) -> Iterator[Store]:
    """A store whose writer does not run."""
    with closing(Store(items_url)) as idle:
        yield idle


@pytest.fixture
async def store(items_url: URL) -> AsyncIterator[Store]:
    """A store whose writer runs."""
    async with running_store(items_url) as running:
        yield running

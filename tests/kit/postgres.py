"""A database of our own on the test machine's PostgreSQL, or a skip that says what is missing."""

import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

_SERVER = "postgresql+psycopg://postgres@localhost:5432/postgres"


def _run(url: URL, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[URL]:
    """An empty database, dropped after the session."""
    name = f"pipelit_test_{secrets.token_hex(6)}"
    try:
        _run(make_url(_SERVER), f"CREATE DATABASE {name}")
    except OperationalError:
        pytest.skip("missing service: PostgreSQL on localhost:5432")
    yield make_url(_SERVER).set(database=name)
    _run(make_url(_SERVER), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_database: URL) -> URL:
    """A fresh, empty schema of that database, for one test."""
    name = f"test_{secrets.token_hex(6)}"
    _run(postgres_database, f"CREATE SCHEMA {name}")
    return postgres_database.update_query_dict({"options": f"-csearch_path={name}"})

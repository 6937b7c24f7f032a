"""Migrations: complete, in one piece, and equal to the schema in code."""

import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Engine, inspect, text

from pipelit.store import StartError
from pipelit.store.database import Purpose, open_engine
from pipelit.store.migrate import SCRIPTS, Migrations, back_up
from pipelit.store.schema import metadata

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_HEADER = """
import sqlalchemy as sa
from alembic import op
revision = "9999"
down_revision = {down!r}
"""


def scripts_with(directory: Path, upgrade: str) -> Path:
    """Copy the migrations and add one more, whose `upgrade` has the given body."""
    (directory / "versions").mkdir(parents=True)
    for name in ("env.py", "script.py.mako"):
        (directory / name).write_text((SCRIPTS / name).read_text())
    for script in (SCRIPTS / "versions").glob("*.py"):
        (directory / "versions" / script.name).write_text(script.read_text())
    body = "\n".join(f"    {line}" for line in upgrade.splitlines())
    header = _HEADER.format(down=Migrations().newest)
    (directory / "versions" / "9999_next.py").write_text(f"{header}def upgrade():\n{body}\n")
    return directory


@pytest.fixture
def engine(url: URL) -> Iterator[Engine]:
    """An engine as the start uses it, on an empty database."""
    engine = open_engine(url, Purpose.MIGRATE)
    yield engine
    engine.dispose()


def test_the_migrated_database_is_the_schema(engine: Engine) -> None:
    """After all revisions nothing is left for Alembic to add, drop or change."""
    Migrations().upgrade(engine)

    with engine.connect() as connection:
        # SQLite reports defaults as written; the next test compares those.
        defaults = engine.dialect.name == "postgresql"
        context = MigrationContext.configure(connection, opts={"compare_server_default": defaults})
        assert compare_metadata(context, metadata) == []
        assert Migrations().current(connection) == Migrations().newest


def test_migrated_and_created_sqlite_files_are_alike(tmp_path: Path) -> None:
    """Revisions and `create_all` give the same columns, keys, checks and indices, word for word."""
    shapes = []
    for name, build in (
        ("a", Migrations().upgrade),
        ("b", metadata.create_all),
    ):
        engine = open_engine(URL.create("sqlite", database=str(tmp_path / name)), Purpose.MIGRATE)
        build(engine)
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master"))
            shapes.append(
                {
                    (kind, name): _normal(sql)
                    for kind, name, table, sql in rows
                    if table != "alembic_version"
                }
            )
        engine.dispose()

    assert shapes[0] == shapes[1]


def _normal(sql: str | None) -> list[str]:
    # The order of constraints and superfluous brackets do not matter.
    return sorted(re.sub(r"[(),]", " ", sql or "").split())


def test_a_second_upgrade_changes_nothing(engine: Engine) -> None:
    """Upgrading the newest database is harmless."""
    Migrations().upgrade(engine)

    Migrations().upgrade(engine)

    with engine.connect() as connection:
        assert "workflows" in inspect(connection).get_table_names()


def test_a_failing_migration_leaves_the_database_as_it_was(engine: Engine, tmp_path: Path) -> None:
    """An error half-way undoes tables, rows and the revision itself."""
    Migrations().upgrade(engine)
    scripts = scripts_with(
        tmp_path / "scripts",
        'op.create_table("half", sa.Column("id", sa.Integer()))\n'
        "op.execute(\"INSERT INTO meta (key, value) VALUES ('half', 'done')\")\n"
        'raise ValueError("no way on")',
    )

    with pytest.raises(StartError, match=r"^Migrating the database failed: no way on$"):
        Migrations(scripts).upgrade(engine)

    with engine.connect() as connection:
        assert "half" not in inspect(connection).get_table_names()
        assert connection.scalar(text("SELECT count(*) FROM meta")) == 0
        assert Migrations().current(connection) == Migrations().newest


def test_a_migration_that_breaks_references_is_undone(sqlite_url: URL, tmp_path: Path) -> None:
    """SQLite does not enforce references during a migration; its end checks them."""
    engine = open_engine(sqlite_url, Purpose.MIGRATE)
    Migrations().upgrade(engine)
    scripts = scripts_with(
        tmp_path / "scripts",
        "op.execute(\"INSERT INTO journal VALUES ('nobody', 1, 'n', '0', 'result', '{}')\")",
    )

    with pytest.raises(StartError, match="a row of journal refers to nothing"):
        Migrations(scripts).upgrade(engine)

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM journal")) == 0
    engine.dispose()


def test_a_database_of_a_newer_program_is_refused(engine: Engine, tmp_path: Path) -> None:
    """An unknown revision is left alone."""
    Migrations(scripts_with(tmp_path / "scripts", "pass")).upgrade(engine)

    with engine.connect() as connection, pytest.raises(StartError, match="revision 9999"):
        Migrations().current(connection)


def test_a_backup_holds_what_is_still_in_the_log(sqlite_url: URL, tmp_path: Path) -> None:
    """The copy is complete while the database is open, private, and named by revision and time."""
    engine = open_engine(sqlite_url, Purpose.WRITE)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a)"))
        connection.execute(text("INSERT INTO t VALUES (42)"))

    copy = back_up(Path(sqlite_url.database or ""), tmp_path / "backups", revision="0001", now=NOW)

    engine.dispose()
    assert copy.name == "db-0001-20260102T030405.sqlite3"
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT a FROM t").fetchall() == [(42,)]

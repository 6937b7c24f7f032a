"""Brings a database to the schema of this program: all of a migration, or nothing of it."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from pipelit.store.errors import StartError

SCRIPTS = Path(__file__).with_name("migrations")


class Migrations:
    """The chain of revisions in a directory of scripts."""

    def __init__(self, scripts: Path = SCRIPTS) -> None:
        self._config = Config()
        self._config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        self._config.set_main_option("path_separator", "os")
        self._scripts = ScriptDirectory.from_config(self._config)

    @property
    def newest(self) -> str | None:
        """The revision this program wants."""
        return self._scripts.get_current_head()

    def current(self, connection: Connection) -> str | None:
        """Return the database's revision; None if it is empty.

        Raises:
            StartError: this program does not know the revision.
        """
        revision = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in self._scripts.walk_revisions()}
        if revision is not None and revision not in known:
            raise StartError(
                f"This database is of a newer Pipelit (revision {revision}): upgrade the program."
            )
        return revision

    def upgrade(self, engine: Engine) -> None:
        """Run what is due in one transaction; an error leaves the database as it was.

        The caller holds the lock that keeps other servers from doing the same.

        Raises:
            StartError: a revision fails or leaves references that point nowhere.
        """
        try:
            with engine.begin() as connection:
                self._config.attributes["connection"] = connection
                command.upgrade(self._config, "head")
                if connection.dialect.name == "sqlite":
                    _check_references(connection)
        except StartError:
            raise
        except Exception as error:
            # A revision is arbitrary code: whatever it raises, the server must not start on it.
            raise StartError(f"Migrating the database failed: {error}") from error


def _check_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise StartError(f"Migrating the database failed: a row of {broken[0]} refers to nothing.")


def back_up(database: Path, directory: Path, *, revision: str, now: datetime) -> Path:
    """Copy an SQLite database, with what is still in its log, and return the copy's path.

    Args:
        database: may be in use.
        directory: created with mode 0700 if missing.
        revision: of the database; part of the name.
        now: aware; part of the name.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
    copy = directory / f"{database.stem}-{revision}-{stamp}.sqlite3"
    draft = copy.with_suffix(".partial")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(draft)) as target:
        source.backup(target)
    draft.rename(copy)
    return copy

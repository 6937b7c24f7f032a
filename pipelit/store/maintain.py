"""What an operator does with a database beside the server: back it up, check it, upgrade it.

Contract: operations.md §4.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

import msgspec
from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from pipelit.store.database import Purpose, open_engine, parse_database_url, sqlite_path
from pipelit.store.errors import StartError
from pipelit.store.lock import database_lock, start_lock
from pipelit.store.migrate import Migrations
from pipelit.store.open import StoreConfig, prepare
from pipelit.store.queries import audit, meta
from pipelit.store.rotate import count_unreadable
from pipelit.store.secrets import KEY_FILE, find_secrets


class Upgraded(msgspec.Struct, frozen=True):
    """The revisions before and after; the same when nothing was due."""

    before: str | None
    after: str | None


class BackedUp(msgspec.Struct, frozen=True, kw_only=True):
    """A finished backup."""

    path: str
    bytes: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one check."""

    check: str
    status: Literal["ok", "failed", "skipped"]
    detail: str


def upgrade(config: StoreConfig, say: Callable[[str], None]) -> Upgraded:
    """Bring a database to the schema of this program, with a backup first, as the server does.

    Raises:
        StartError: a server runs, or the migration fails; the database is as before.
    """
    url = parse_database_url(config.database_url)
    database, migrations = sqlite_path(url), Migrations()
    with ExitStack() as held:
        if database is not None:
            held.enter_context(database_lock(database))
        engine = open_engine(url, Purpose.MIGRATE, size=2)
        held.callback(engine.dispose)
        try:
            held.enter_context(start_lock(engine))
            with engine.connect() as connection:
                before = migrations.current(connection)
            prepare(engine, config, database, say, migrations)
        except DBAPIError as error:
            raise StartError(f"Cannot open the database: {error.orig}") from error
    return Upgraded(before, migrations.newest)


def back_up_to(config: StoreConfig, target: Path | None) -> BackedUp:
    """Copy the database while servers use it: one moment of it, complete.

    Args:
        target: a file that does not exist; None: a new one in `backups/`.

    Raises:
        StartError: there is no database, the target exists, or the copy is not sound.
    """
    url = parse_database_url(config.database_url)
    database = sqlite_path(url)
    suffix = "sqlite3" if database is not None else "dump"
    path = target or _default_target(config, suffix)
    if path.exists():
        raise StartError(f"{path} exists already.")
    draft = path.with_name(f"{path.name}.partial")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    try:
        if database is None:
            _dump_postgres(url, draft)
        else:
            _copy_sqlite(database, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return BackedUp(path=str(path), bytes=path.stat().st_size)


def _default_target(config: StoreConfig, suffix: str) -> Path:
    directory = config.data_dir / "backups"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / f"backup-{config.now.strftime('%Y%m%dT%H%M%S')}.{suffix}"


def _copy_sqlite(database: Path, draft: Path) -> None:
    if not database.exists():
        raise StartError(f"There is no database {database}.")
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(draft)) as copy:
            # In one step, which in WAL mode holds nobody up: in pieces it would start again
            # whenever the server writes.
            source.backup(copy)
            # One file: a copy must not need a -wal beside it.
            copy.execute("PRAGMA journal_mode = DELETE").close()
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise StartError(f"The backup failed: {error}.") from error
    if verdict != "ok":
        raise StartError(f"The backup failed: the copy is not sound ({verdict}).")


def _dump_postgres(url: URL, draft: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise StartError("pg_dump is not installed; it comes with PostgreSQL's client programs.")
    # The password goes through the environment: arguments can be read by every user.
    address = url.set(drivername="postgresql", password=None).render_as_string()
    environ = dict(os.environ) | ({"PGPASSWORD": str(url.password)} if url.password else {})
    command = [program, "--format=custom", f"--file={draft}", "--no-password", address]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(f"pg_dump failed: {done.stderr.strip()[:500]}")


def check(config: StoreConfig) -> tuple[Finding, ...]:
    """Look whether a database is sound; changes nothing, and servers may use it meanwhile.

    Raises:
        StartError: there is no database, or it does not answer.
    """
    url = parse_database_url(config.database_url)
    database = sqlite_path(url)
    if database is not None and not database.exists():
        raise StartError(f"There is no database {database}.")
    engine = open_engine(url, Purpose.READ)
    try:
        with engine.connect() as connection:
            return tuple(_findings(connection, config))
    except DBAPIError as error:
        raise StartError(f"The database cannot be read: {error.orig}") from error
    finally:
        engine.dispose()


def _findings(connection: Connection, config: StoreConfig) -> Iterator[Finding]:
    migrations = Migrations()
    revision = migrations.current(connection)
    is_newest = revision == migrations.newest
    detail = f"{revision}" if is_newest else f"{revision}: run `pipelit db upgrade`"
    yield _finding("revision", is_newest, detail)
    yield from _pages(connection)
    if not is_newest or not inspect(connection).has_table("meta"):
        return
    yield _secrets(connection, config)
    for name, broken in audit.find_broken(connection):
        shown = ", ".join(broken[:10])
        yield _finding(name, not broken, f"{len(broken)} executions: {shown}" if broken else "")


def _pages(connection: Connection) -> Iterator[Finding]:
    if connection.dialect.name != "sqlite":
        yield Finding(
            check="pages", status="skipped", detail="PostgreSQL has tools of its own (pg_amcheck)"
        )
        return
    found = [row[0] for row in connection.execute(text("PRAGMA integrity_check(10)"))]
    yield _finding("pages", found == ["ok"], "; ".join(map(str, found)))
    broken = connection.execute(text("PRAGMA foreign_key_check")).fetchmany(10)
    tables = ", ".join(sorted({str(row[0]) for row in broken}))
    yield _finding("references", not broken, f"rows of {tables} refer to nothing" if broken else "")


def _secrets(connection: Connection, config: StoreConfig) -> Finding:
    check_value = meta.find_value(connection, meta.ENCRYPTION_CHECK)
    if check_value is None:
        return Finding(check="secrets", status="skipped", detail="no key was used yet")
    try:
        key_file = config.data_dir / KEY_FILE
        secrets = find_secrets(config.encryption_key, key_file, check_value, say=lambda _: None)
    except StartError as error:
        return _finding("secrets", False, str(error))
    total, unreadable = count_unreadable(connection, secrets)
    text_ = f"{unreadable} of {total} cannot be read" if unreadable else f"{total} can be read"
    return _finding("secrets", not unreadable, text_)


def _finding(name: str, is_ok: bool, detail: str) -> Finding:
    return Finding(check=name, status="ok" if is_ok else "failed", detail=detail)

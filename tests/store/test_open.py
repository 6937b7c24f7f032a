"""The start and end of the store. Contract: operations.md §5, settings.md §4."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from sqlalchemy import URL, text

from pipelit.store import StartError, StoreConfig, open_store
from pipelit.store.database import Purpose, open_engine, parse_database_url
from pipelit.store.migrate import Migrations
from pipelit.store.queries import meta, servers
from pipelit.store.secrets import KEY_FILE, new_key
from tests.store.test_migrate import scripts_with

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def config_for(
    url: URL, data_dir: Path, *, key: str | None = None, node_id: str = "node-1"
) -> StoreConfig:
    return StoreConfig(
        database_url=url.set(drivername=url.get_backend_name()).render_as_string(
            hide_password=False
        ),
        data_dir=data_dir,
        encryption_key=key,
        now=NOW,
        new_node_id=node_id,
    )


async def start_once(config: StoreConfig, *, migrations: Migrations | None = None) -> list[str]:
    """Start and stop; return what was said."""
    said: list[str] = []
    async with open_store(config, say=said.append, migrations=migrations):
        pass
    return said


async def test_a_first_start_makes_everything(url: URL, tmp_path: Path) -> None:
    """An empty database and data directory become a migrated store with key, node id and epoch."""
    said: list[str] = []

    async with open_store(config_for(url, tmp_path), say=said.append) as opened:
        check = await opened.store.read(lambda c: meta.find_value(c, meta.ENCRYPTION_CHECK))
        (server,) = await opened.store.read(servers.list_servers)

    assert (opened.node_id, opened.epoch) == ("node-1", 1)
    assert (server.node_id, server.epoch, server.live) == ("node-1", 1, True)
    assert check is not None
    assert opened.secrets.fits(check)
    assert said == [
        f"Created encryption key {tmp_path / KEY_FILE}. "
        "Back it up: without it stored secrets cannot be read."
    ]


async def test_a_restart_keeps_the_node_id_and_grows_the_epoch(url: URL, tmp_path: Path) -> None:
    """The node id belongs to the data directory, the epoch to the start; no backup, no notice."""
    await start_once(config_for(url, tmp_path))

    async with open_store(config_for(url, tmp_path, node_id="other"), say=pytest.fail) as opened:
        assert (opened.node_id, opened.epoch) == ("node-1", 2)

    assert not await trio.Path(tmp_path / "backups").exists()


async def test_two_servers_share_postgresql(postgres_url: URL, tmp_path: Path) -> None:
    """Servers with data directories of their own and one key start at once, each with its epoch."""
    key, opened = new_key(), []

    async def start(name: str) -> None:
        directory = tmp_path / name
        await trio.Path(directory).mkdir()
        config = config_for(postgres_url, directory, key=key, node_id=name)
        async with open_store(config, say=pytest.fail) as one:
            opened.append((one.epoch, one.node_id))

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(start, name)

    assert sorted(epoch for epoch, _ in opened) == [1, 2, 3]
    assert sorted(name for _, name in opened) == ["a", "b", "c"]


async def test_a_second_server_is_refused_on_sqlite(sqlite_url: URL, tmp_path: Path) -> None:
    """The lock is held as long as the store is open, also through another name of the file."""
    link = tmp_path / "link.sqlite3"
    await trio.Path(link).symlink_to(tmp_path / "db.sqlite3")
    async with open_store(config_for(sqlite_url, tmp_path), say=lambda _: None):
        with pytest.raises(StartError, match=r"^Another Pipelit server \(pid \d+\) uses this"):
            await start_once(config_for(sqlite_url.set(database=str(link)), tmp_path))

    await start_once(config_for(sqlite_url, tmp_path))


async def test_a_wrong_key_changes_nothing(url: URL, tmp_path: Path) -> None:
    """The key is checked before a backup is made or anything is migrated."""
    await start_once(config_for(url, tmp_path, key=new_key()))
    next_release = Migrations(scripts_with(tmp_path / "scripts", 'op.drop_table("meta")'))

    with pytest.raises(StartError, match=r"^Wrong encryption key: "):
        await start_once(config_for(url, tmp_path, key=new_key()), migrations=next_release)
    with pytest.raises(StartError, match=r"^Encryption key missing: "):
        await start_once(config_for(url, tmp_path), migrations=next_release)

    assert not (await trio.Path(tmp_path / "backups").exists())
    assert not (await trio.Path(tmp_path / KEY_FILE).exists())


async def test_a_due_migration_is_preceded_by_a_backup(sqlite_url: URL, tmp_path: Path) -> None:
    """The old file is copied to `backups/` before a migration, and the operator is told."""
    await start_once(config_for(sqlite_url, tmp_path))
    next_release = Migrations(
        scripts_with(tmp_path / "scripts", 'op.create_table("new", sa.Column("a", sa.Integer()))')
    )

    said = await start_once(config_for(sqlite_url, tmp_path), migrations=next_release)

    copy = tmp_path / "backups" / f"db-{Migrations().newest}-20260102T030405.sqlite3"
    assert said == [f"Backed up the database to {copy} before migrating it."]
    assert _tables(sqlite_url) - _tables(sqlite_url.set(database=str(copy))) == {"new"}


def _tables(url: URL) -> set[str]:
    engine = open_engine(url, Purpose.READ)
    with engine.connect() as connection:
        found = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
    engine.dispose()
    return found


async def test_a_failed_migration_starts_nothing(sqlite_url: URL, tmp_path: Path) -> None:
    """The start ends with one sentence, the database works with the old program as before."""
    await start_once(config_for(sqlite_url, tmp_path))
    broken = Migrations(
        scripts_with(tmp_path / "scripts", 'op.drop_table("meta")\nraise ValueError("no")')
    )

    before = _tables(sqlite_url)
    with pytest.raises(StartError) as caught:
        await start_once(config_for(sqlite_url, tmp_path), migrations=broken)

    (copy,) = (tmp_path / "backups").iterdir()
    assert str(caught.value) == (
        "Migrating the database failed: no; the database is as before: go on with the version "
        f"that used it last (backup: {copy})."
    )
    assert _tables(sqlite_url) == before == _tables(sqlite_url.set(database=str(copy)))
    assert await start_once(config_for(sqlite_url, tmp_path)) == []


@pytest.mark.parametrize(
    "url",
    ["mysql://localhost/a", "sqlite://", "sqlite:///:memory:", "no url", "postgres://u:secret@h/d"],
)
def test_other_databases_are_refused(url: str) -> None:
    """Only SQLite files and PostgreSQL are taken, and a refusal repeats no password."""
    with pytest.raises(StartError) as caught:
        parse_database_url(url)

    assert "secret" not in str(caught.value)


async def test_a_database_that_does_not_answer_is_one_sentence(
    postgres_url: URL, tmp_path: Path
) -> None:
    """A start without its database fails with a message, not a traceback."""
    with pytest.raises(StartError, match=r"^Cannot open the database: "):
        await start_once(config_for(postgres_url.set(port=1), tmp_path))


async def test_a_directory_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """A database in a missing directory is refused with a message."""
    missing = parse_database_url(f"sqlite:///{tmp_path / 'missing' / 'db.sqlite3'}")

    with pytest.raises(StartError, match=r"^Cannot open the database: "):
        await start_once(config_for(missing, tmp_path))

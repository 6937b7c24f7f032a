"""The start of the store: lock, key check, backup, migration, epoch. And its end."""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, nullcontext
from datetime import datetime
from pathlib import Path

import msgspec
import trio
from sqlalchemy import URL, Connection, Engine, inspect
from sqlalchemy.exc import DBAPIError

from pipelit.store.database import Purpose, open_engine, parse_database_url, sqlite_path
from pipelit.store.errors import StartError
from pipelit.store.lock import database_lock, start_lock
from pipelit.store.meter import OnCommit, ignore_commit
from pipelit.store.migrate import Migrations, back_up
from pipelit.store.queries import meta, servers
from pipelit.store.secrets import KEY_FILE, Secrets, find_secrets
from pipelit.store.store import Store
from pipelit.store.writer import Hold

NODE_FILE = "node_id"


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the store has to be told to start. Contract: settings.md §2, §4."""

    database_url: str
    """`sqlite:///path` or `postgresql://…`."""
    data_dir: Path
    """Exists; holds the key file, the node id and `backups/`."""
    encryption_key: str | None
    """`FIELD_ENCRYPTION_KEY`, None when not set."""
    now: datetime
    """The present, aware: names the backup."""
    new_node_id: str
    """At most 36 characters; used if the data directory has no node id yet."""


class OpenStore(msgspec.Struct, frozen=True, kw_only=True):
    """A store ready to run, and who this server is."""

    store: Store
    secrets: Secrets
    node_id: str
    """The same as long as the data directory lives."""
    epoch: int
    """New at every start; the lease under it runs already. Contract: engine.md §10.7."""


@asynccontextmanager
async def open_store(
    config: StoreConfig,
    *,
    say: Callable[[str], None],
    hold: Hold = nullcontext,
    migrations: Migrations | None = None,
    on_commit: OnCommit = ignore_commit,
) -> AsyncIterator[OpenStore]:
    """Open the database for one server, for as long as the block lasts.

    In order: lock → encryption key → backup if a migration is due → migrate → new epoch. The
    caller runs `OpenStore.store.run` inside the block, and the block outlasts it.

    Args:
        say: gets notices and warnings for the operator, one sentence each, from a thread.
        on_commit: see `Store`.

    Raises:
        StartError: one sentence for the operator; the database is as before.

    Contract: operations.md §5, settings.md §4.
    """
    with ExitStack() as held:
        started = await trio.to_thread.run_sync(
            _start, config, held, say, migrations or Migrations()
        )
        store = Store(started.url, hold=hold, on_commit=on_commit)
        held.callback(store.close)
        yield OpenStore(
            store=store, secrets=started.secrets, node_id=started.node_id, epoch=started.epoch
        )


class _Started(msgspec.Struct, frozen=True):
    url: URL
    secrets: Secrets
    node_id: str
    epoch: int


def _start(
    config: StoreConfig, held: ExitStack, say: Callable[[str], None], migrations: Migrations
) -> _Started:
    url = parse_database_url(config.database_url)
    database = sqlite_path(url)
    try:
        if database is not None:
            held.enter_context(database_lock(database))
        engine = open_engine(url, Purpose.MIGRATE, size=2)
        try:
            with start_lock(engine):
                secrets = prepare(engine, config, database, say, migrations)
                node_id = _node_id(config)
                with engine.begin() as connection:
                    epoch = _register(connection, secrets, node_id)
        finally:
            engine.dispose()
    except (DBAPIError, OSError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StartError(f"Cannot open the database: {cause}") from error
    return _Started(url, secrets, node_id, epoch)


def prepare(
    engine: Engine,
    config: StoreConfig,
    database: Path | None,
    say: Callable[[str], None],
    migrations: Migrations,
) -> Secrets:
    """Check before anything changes, then bring the database to this program's schema."""
    with engine.connect() as connection:
        revision = migrations.current(connection)
        check_value = _check_value(connection)
    secrets = find_secrets(config.encryption_key, config.data_dir / KEY_FILE, check_value, say=say)
    if revision != migrations.newest:
        if database is None or revision is None:
            migrations.upgrade(engine)
        else:
            copy = back_up(database, config.data_dir / "backups", revision=revision, now=config.now)
            say(f"Backed up the database to {copy} before migrating it.")
            _upgrade_or_tell(engine, migrations, copy)
    return secrets


def _upgrade_or_tell(engine: Engine, migrations: Migrations, copy: Path) -> None:
    """Migrate; if that fails, say how to go back."""
    try:
        migrations.upgrade(engine)
    except StartError as error:
        raise StartError(
            f"{str(error).rstrip('.')}; the database is as before: go on with the version that "
            f"used it last (backup: {copy})."
        ) from error


def _check_value(connection: Connection) -> str | None:
    if not inspect(connection).has_table("meta"):
        return None
    return meta.find_value(connection, meta.ENCRYPTION_CHECK)


def _register(connection: Connection, secrets: Secrets, node_id: str) -> int:
    if meta.find_value(connection, meta.ENCRYPTION_CHECK) is None:
        meta.set_value(connection, meta.ENCRYPTION_CHECK, secrets.check_value())
    return servers.register_server(connection, node_id)


def _node_id(config: StoreConfig) -> str:
    path = config.data_dir / NODE_FILE
    if path.exists():
        return path.read_text(encoding="ascii").strip()
    draft = path.with_name(f"{NODE_FILE}.new")
    draft.write_text(f"{config.new_node_id}\n", encoding="ascii")
    draft.rename(path)
    return config.new_node_id

"""Changes the encryption key: every secret under a new one, in one transaction.

Whatever moment the process dies, one of two keys fits the database and both are on disk: the new
key is written beside the old one before anything changes, and takes its place after the commit.
Contract: operations.md §4, settings.md §4.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Table, inspect, select, update

from pipelit.store.database import Purpose, open_engine, parse_database_url, sqlite_path
from pipelit.store.errors import SecretUnreadable, StartError
from pipelit.store.lock import database_lock, start_lock
from pipelit.store.migrate import Migrations
from pipelit.store.open import StoreConfig
from pipelit.store.queries import meta, servers
from pipelit.store.schema import api_keys, credentials, users
from pipelit.store.secrets import (
    KEY_FILE,
    Secrets,
    adopt_next_key,
    drop_next_key,
    find_secrets,
    next_key,
    write_next_key,
)

PAGE = 500

_COLUMNS: tuple[tuple[Table, str], ...] = (
    (users, "totp_secret"),
    (users, "totp_pending"),
    (api_keys, "encrypted_key"),
)
"""Columns that hold one secret each. Those of credentials are inside `detail.secret`."""


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `new_key` is set when the operator has to put it into the environment."""

    secrets: int
    old_key_id: str
    new_key_id: str
    new_key: str | None
    resumed: bool = False
    """An earlier try had committed; this one only finished it."""


def rotate_key(config: StoreConfig, *, key: str, reveal: Callable[[str], None]) -> Rotated:
    """Re-encrypt all secrets under *key*; the key file, or the operator, gets it.

    Args:
        key: the new one.
        reveal: shows the new key when the old one came from the environment; called before
            anything changes, so that no key exists that nobody has.

    Raises:
        StartError: a server runs, the key does not fit, or a secret is damaged; nothing changed.
    """
    url = parse_database_url(config.database_url)
    database = sqlite_path(url)
    if database is not None and not database.exists():
        raise StartError(f"There is no database {database}.")
    with ExitStack() as held:
        if database is not None:
            held.enter_context(database_lock(database))
        engine = open_engine(url, Purpose.MIGRATE, size=2)
        held.callback(engine.dispose)
        held.enter_context(start_lock(engine))
        with engine.connect() as connection:
            check = _check(connection, shared=database is None)
        resumed = _finish_earlier(config, check, reveal)
        if resumed is not None:
            return resumed
        old, new = _old_secrets(config, check), Secrets(key)
        write_next_key(config.data_dir, key)
        if config.encryption_key:
            reveal(key)
        with engine.begin() as connection:
            count = _re_encrypt(connection, old, new)
            meta.set_value(connection, meta.ENCRYPTION_CHECK, new.check_value())
    _settle(config)
    return Rotated(
        secrets=count,
        old_key_id=old.key_id,
        new_key_id=new.key_id,
        new_key=key if config.encryption_key else None,
    )


def _check(connection: Connection, *, shared: bool) -> str:
    """Return the database's check value, once it is sure that nobody else uses the database."""
    migrations = Migrations()
    if migrations.current(connection) != migrations.newest:
        raise StartError("The database is not of this version: run `pipelit db upgrade` first.")
    if shared:
        alive = [one.node_id for one in servers.list_servers(connection) if one.live]
        if alive:
            raise StartError(f"Stop every server first; alive: {', '.join(alive)}.")
    check = meta.find_value(connection, meta.ENCRYPTION_CHECK)
    if check is None or not inspect(connection).has_table("meta"):
        raise StartError("This database has no encryption key yet.")
    return check


def _finish_earlier(
    config: StoreConfig, check: str, reveal: Callable[[str], None]
) -> Rotated | None:
    """Finish a rotation that died after its commit; forget one that died before."""
    key = next_key(config.data_dir)
    if key is None:
        return None
    new = Secrets(key)
    if not new.fits(check):
        drop_next_key(config.data_dir)
        return None
    is_known = config.encryption_key == key
    if config.encryption_key and not is_known:
        reveal(key)
    _settle(config)
    return Rotated(
        secrets=0,
        old_key_id="unknown",
        new_key_id=new.key_id,
        new_key=key if config.encryption_key and not is_known else None,
        resumed=True,
    )


def _old_secrets(config: StoreConfig, check: str) -> Secrets:
    return find_secrets(
        config.encryption_key, config.data_dir / KEY_FILE, check, say=lambda _: None
    )


def _settle(config: StoreConfig) -> None:
    """Put the new key where the server looks for it."""
    if config.encryption_key:
        drop_next_key(config.data_dir)
    else:
        adopt_next_key(config.data_dir)


def _re_encrypt(connection: Connection, old: Secrets, new: Secrets) -> int:
    count = 0
    for table, name in _COLUMNS:
        column = table.c[name]
        for row_id, stored in _rows(connection, table, column):
            value = _again(stored, old, new, f"{table.name}.{name}", row_id)
            connection.execute(update(table).where(table.c.id == row_id).values({name: value}))
            count += 1
    for row_id, detail in _rows(connection, credentials, credentials.c.detail):
        secret = {
            field: _again(stored, old, new, f"credentials.{field}", row_id)
            for field, stored in detail.get("secret", {}).items()
        }
        changed = update(credentials).where(credentials.c.id == row_id)
        connection.execute(changed.values(detail={**detail, "secret": secret}))
        count += len(secret)
    return count


def _again(stored: str, old: Secrets, new: Secrets, where: str, row_id: int) -> str:
    try:
        return new.encrypt(old.decrypt(stored))
    except SecretUnreadable as error:
        raise StartError(f"Nothing was changed: {where} of row {row_id}: {error}.") from None


def _rows(connection: Connection, table: Table, column: Column[Any]) -> Iterator[tuple[int, Any]]:
    """Yield (id, value) of the rows that have one, page by page."""
    after = -1
    while True:
        page = (
            select(table.c.id, column)
            .where(table.c.id > after, column.is_not(None))
            .order_by(table.c.id)
            .limit(PAGE)
        )
        rows = connection.execute(page).all()
        yield from rows
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def count_unreadable(connection: Connection, secrets: Secrets) -> tuple[int, int]:
    """Return how many secrets the database holds and how many of them the key does not open."""
    total = unreadable = 0
    stored = [
        value for table, name in _COLUMNS for _, value in _rows(connection, table, table.c[name])
    ]
    for _, detail in _rows(connection, credentials, credentials.c.detail):
        stored += detail.get("secret", {}).values()
    for value in stored:
        total += 1
        try:
            secrets.decrypt(value)
        except SecretUnreadable:
            unreadable += 1
    return total, unreadable

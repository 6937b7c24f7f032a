"""A new encryption key: every secret under it, or none. Contract: operations.md §4."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, insert, select

from pipelit.store import StartError, schema
from pipelit.store.database import Purpose, open_engine
from pipelit.store.lock import database_lock
from pipelit.store.queries import meta
from pipelit.store.rotate import Rotated, rotate_key
from pipelit.store.secrets import (
    KEY_FILE,
    NEXT_KEY_FILE,
    Secrets,
    find_secrets,
    new_key,
    write_next_key,
)
from tests.store.test_open import NOW, config_for

OLD, NEW = new_key(), new_key()


@pytest.fixture
def engine(store_url: URL, tmp_path: Path) -> Iterator[Engine]:
    """A database with secrets in every place that has some, and its key file."""
    engine = open_engine(store_url, Purpose.MIGRATE)
    (tmp_path / KEY_FILE).write_text(f"{OLD}\n")
    with engine.begin() as connection:
        fill(connection, Secrets(OLD))
    yield engine
    engine.dispose()


def fill(conn: Connection, key: Secrets) -> None:
    meta.set_value(conn, meta.ENCRYPTION_CHECK, key.check_value())
    user = {"username": "ada", "created_at": NOW}
    totp = {"totp_secret": key.encrypt("S1"), "totp_pending": key.encrypt("S2")}
    user_id = conn.scalar(insert(schema.users).values(**user, **totp).returning(schema.users.c.id))
    api_key = {"user_id": user_id, "name": "k", "key_hash": "h", "prefix": "p", "suffix": "s"}
    conn.execute(
        insert(schema.api_keys).values(
            **api_key, encrypted_key=key.encrypt("S3"), is_active=True, created_at=NOW
        )
    )
    detail = {"clear": {"base_url": "u"}, "secret": {"api_key": key.encrypt('"S4"')}}
    conn.execute(
        insert(schema.credentials).values(
            name="c", credential_type="llm", detail=detail, created_at=NOW, updated_at=NOW
        )
    )


def opened(engine: Engine, key: str) -> list[str]:
    """Return every secret of the database as *key* opens it."""
    with engine.connect() as conn:
        columns = (schema.users.c.totp_secret, schema.users.c.totp_pending)
        stored: list[Any] = [*conn.execute(select(*columns)).one()]
        stored.append(conn.scalar(select(schema.api_keys.c.encrypted_key)))
        detail: Any = conn.scalar(select(schema.credentials.c.detail))
        assert detail["clear"] == {"base_url": "u"}
        stored.append(detail["secret"]["api_key"])
    return [Secrets(key).decrypt(value) for value in stored]


SECRETS = ["S1", "S2", "S3", '"S4"']


def rotate(url: URL, directory: Path, *, environ_key: str | None = None) -> tuple[Rotated, str]:
    """Rotate to NEW; return what came of it and what the operator was shown."""
    shown: list[str] = []
    config = config_for(url, directory, key=environ_key)
    return rotate_key(config, key=NEW, reveal=shown.append), "".join(shown)


def test_every_secret_is_under_the_new_key(engine: Engine, store_url: URL, tmp_path: Path) -> None:
    """Users' second factors, stored API keys, credentials; and the key file has the new key."""
    done, shown = rotate(store_url, tmp_path)

    assert (done.secrets, done.new_key, shown) == (4, None, "")
    assert opened(engine, NEW) == SECRETS
    assert (tmp_path / KEY_FILE).read_text().strip() == NEW
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / NEXT_KEY_FILE).exists()


def test_a_key_of_the_environment_is_shown_and_not_written(
    engine: Engine, store_url: URL, tmp_path: Path
) -> None:
    """The operator puts it where the old one came from."""
    (tmp_path / KEY_FILE).unlink()
    done, shown = rotate(store_url, tmp_path, environ_key=OLD)

    assert done.new_key == shown == NEW
    assert opened(engine, NEW) == SECRETS
    assert not list(tmp_path.glob("encryption.key*"))


def test_one_damaged_secret_leaves_everything_as_it_was(
    engine: Engine, store_url: URL, tmp_path: Path
) -> None:
    """And is named; the message holds nothing secret."""
    with engine.begin() as conn:
        conn.execute(schema.api_keys.update().values(encrypted_key="enc:00000000:x"))
    with pytest.raises(StartError, match=r"Nothing was changed: api_keys.encrypted_key of row 1"):
        rotate(store_url, tmp_path)

    assert (tmp_path / KEY_FILE).read_text().strip() == OLD
    with engine.connect() as conn:
        check = meta.find_value(conn, meta.ENCRYPTION_CHECK)
    assert check is not None
    assert Secrets(OLD).fits(check)


def test_a_running_server_is_not_rotated_under(
    engine: Engine, store_url: URL, tmp_path: Path
) -> None:
    """It would go on with the old key."""
    with (
        database_lock(tmp_path / "db.sqlite3"),
        pytest.raises(StartError, match="Another Pipelit server"),
    ):
        rotate(store_url, tmp_path)


def die_after_the_commit(url: URL, directory: Path) -> None:
    """Leave on disk what a crash leaves between the commit and the last step."""
    rotate(url, directory)
    (directory / KEY_FILE).write_text(f"{OLD}\n")
    write_next_key(directory, NEW)


def test_after_a_crash_behind_the_commit_the_server_finds_the_new_key(
    engine: Engine, store_url: URL, tmp_path: Path
) -> None:
    """And puts it in its place."""
    die_after_the_commit(store_url, tmp_path)
    with engine.connect() as conn:
        check = meta.find_value(conn, meta.ENCRYPTION_CHECK)
    found = find_secrets(None, tmp_path / KEY_FILE, check, say=lambda _: None)

    assert found.key_id == Secrets(NEW).key_id
    assert (tmp_path / KEY_FILE).read_text().strip() == NEW


def test_after_a_crash_behind_the_commit_the_next_try_finishes(
    engine: Engine, store_url: URL, tmp_path: Path
) -> None:
    """It takes no third key."""
    die_after_the_commit(store_url, tmp_path)
    done, _ = rotate(store_url, tmp_path)

    assert done.resumed
    assert opened(engine, NEW) == SECRETS


def test_a_key_of_the_environment_survives_a_crash_behind_the_commit(
    engine: Engine, store_url: URL, tmp_path: Path
) -> None:
    """The next try shows it again."""
    rotate(store_url, tmp_path, environ_key=OLD)
    write_next_key(tmp_path, NEW)
    done, shown = rotate(store_url, tmp_path, environ_key=OLD)

    assert (done.resumed, done.new_key, shown) == (True, NEW, NEW)


def test_after_a_crash_before_the_commit_the_next_try_starts_anew(
    engine: Engine, store_url: URL, tmp_path: Path
) -> None:
    """Nothing was encrypted with the key that was left behind."""
    write_next_key(tmp_path, new_key())
    done, _ = rotate(store_url, tmp_path)

    assert (done.resumed, done.secrets) == (False, 4)
    assert opened(engine, NEW) == SECRETS

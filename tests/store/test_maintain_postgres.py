"""Backup, check and a new key on PostgreSQL. Contract: operations.md §4."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import URL

from pipelit.store import StartError, maintain, open_store
from pipelit.store.database import Purpose, open_engine
from pipelit.store.rotate import rotate_key
from pipelit.store.secrets import KEY_FILE, Secrets, new_key
from tests.store.test_open import config_for
from tests.store.test_rotate import SECRETS, fill, opened

pytestmark = pytest.mark.slow


async def test_a_shared_database_is_checked_dumped_and_re_keyed(
    postgres_url: URL, tmp_path: Path
) -> None:
    """The key is not changed under a live server."""
    if shutil.which("pg_dump") is None:
        pytest.skip("missing program: pg_dump")
    config = config_for(postgres_url, tmp_path)
    async with open_store(config, say=lambda _: None):
        with pytest.raises(StartError, match="Stop every server first; alive: node-1"):
            rotate_key(config, key=new_key(), reveal=lambda _: None)
        done = maintain.back_up_to(config, tmp_path / "dump")
        found = {finding.check: finding.status for finding in maintain.check(config)}

    assert (tmp_path / "dump").read_bytes().startswith(b"PGDMP")
    assert done.bytes > 1000
    assert found == {
        "revision": "ok",
        "pages": "skipped",
        "secrets": "ok",
        "states": "ok",
        "event numbers": "ok",
        "last events": "ok",
        "journals": "ok",
    }


def test_a_stopped_cluster_gets_a_new_key(postgres_url: URL, tmp_path: Path) -> None:
    """One database that nobody uses."""
    config = config_for(postgres_url, tmp_path)
    maintain.upgrade(config, lambda _: None)
    with pytest.raises(StartError, match="no encryption key yet"):
        rotate_key(config, key=new_key(), reveal=lambda _: None)

    assert (tmp_path / KEY_FILE).exists()


def test_every_secret_of_a_stopped_cluster_gets_the_new_key(
    postgres_url: URL, tmp_path: Path
) -> None:
    """As in a file: one transaction, then the key file."""
    config = config_for(postgres_url, tmp_path)
    old, new = new_key(), new_key()
    maintain.upgrade(config, lambda _: None)
    (tmp_path / KEY_FILE).write_text(f"{old}\n")
    engine = open_engine(postgres_url, Purpose.MIGRATE)
    with engine.begin() as conn:
        fill(conn, Secrets(old))

    done = rotate_key(config, key=new, reveal=lambda _: None)

    assert done.secrets == 4
    assert opened(engine, new) == SECRETS
    assert (tmp_path / KEY_FILE).read_text().strip() == new
    engine.dispose()

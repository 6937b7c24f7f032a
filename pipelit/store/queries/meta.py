"""Small facts about the database itself, by name."""

from sqlalchemy import Connection, insert, select, update

from pipelit.store.schema import meta

ENCRYPTION_CHECK = "encryption_check"
"""By which the database knows its encryption key. Contract: settings.md §4."""


def find_value(conn: Connection, key: str) -> str | None:
    """Return the value of *key*, None if it has none."""
    return conn.scalar(select(meta.c.value).where(meta.c.key == key))


def set_value(conn: Connection, key: str, value: str) -> None:
    """Set *key*, at most 100 characters, to *value*."""
    changed = conn.execute(update(meta).where(meta.c.key == key).values(value=value)).rowcount
    if not changed:
        conn.execute(insert(meta).values(key=key, value=value))

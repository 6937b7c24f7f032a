"""A table for tests of the store itself, and units that write it."""

from collections.abc import Callable

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, insert, select

metadata = MetaData()
items = Table(
    "items",
    metadata,
    # Counts up in the order of inserts.
    Column("position", Integer, primary_key=True, autoincrement=True),
    Column("name", String(50), nullable=False, unique=True),
    sqlite_autoincrement=True,
)


class Refused(Exception):
    """A unit changes its mind after it wrote."""


def add(name: str) -> Callable[[Connection], str]:
    """Return a unit that inserts *name* and returns it."""

    def unit(conn: Connection) -> str:
        conn.execute(insert(items).values(name=name))
        return name

    return unit


def add_then_refuse(name: str) -> Callable[[Connection], None]:
    """Return a unit that inserts *name* and raises `Refused`."""

    def unit(conn: Connection) -> None:
        conn.execute(insert(items).values(name=name))
        raise Refused(name)

    return unit


def names(conn: Connection) -> list[str]:
    """Return what was inserted, in order."""
    return list(conn.scalars(select(items.c.name).order_by(items.c.position)))

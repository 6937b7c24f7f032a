"""What all tables have in common: one naming of constraints, and the columns of every day."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text
from sqlalchemy.sql.schema import SchemaItem

from pipelit.store.types import UtcDateTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = BigInteger().with_variant(Integer, "sqlite")


def table(name: str, *items: SchemaItem) -> Table:
    """Return a table whose integer ids are never reused."""
    return Table(name, metadata, *items, sqlite_autoincrement=True)


def id_column() -> Column[int]:
    """Return an integer primary key that the database gives out."""
    return Column("id", ID, primary_key=True, autoincrement=True)


def instant(name: str, *, nullable: bool = False) -> Column[object]:
    """Return a column for an instant."""
    return Column(name, UtcDateTime, nullable=nullable)


def count(name: str) -> Column[int]:
    """Return a column for a number that starts at 0."""
    return Column(name, BigInteger, nullable=False, server_default="0")


def words(name: str, default: str | None = "") -> Column[str]:
    """Return a column for text of any length; null only without a default."""
    return Column(name, Text, nullable=default is None, server_default=default)

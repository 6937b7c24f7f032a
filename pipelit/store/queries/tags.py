"""Lists of texts in JSON columns. Contract: README.md §5 "tags"."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, cast, exists, func, select, type_coerce
from sqlalchemy.dialects.postgresql import JSONB


def has_any(
    conn: Connection, column: ColumnElement[Any], wanted: Collection[str]
) -> ColumnElement[bool]:
    """Return the condition that the list in *column* holds one of *wanted*, exactly."""
    # The databases look into the text themselves: a pattern would take a comma for the end of an
    # item, and SQLite's LIKE ignores case.
    if conn.dialect.name == "sqlite":
        items = func.json_each(column).table_valued("value")
    else:
        items = func.jsonb_array_elements_text(cast(type_coerce(column, Text), JSONB)).table_valued(
            "value"
        )
    return exists(select(items.c.value).where(items.c.value.in_(wanted)))

"""Runs revisions on the connection, and inside the transaction, that `Migrations` hands in."""

from typing import Any, Literal

from alembic import context
from sqlalchemy.types import TypeDecorator

from pipelit.store.schema import metadata


def render_item(kind: str, item: Any, autogen_context: object) -> str | Literal[False]:
    """Write our column types as what they are in the database: a revision outlives our code."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{type(item.impl_instance).__name__}()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters a table by rebuilding it; with the driver's BEGIN off its DDL is transactional.
    render_as_batch=True,
    transactional_ddl=True,
    render_item=render_item,
)
with context.begin_transaction():
    context.run_migrations()

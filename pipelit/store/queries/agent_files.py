"""Files that deep agents keep in the database. Contract: node-types.md §5.2."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.dialects import postgresql, sqlite

from pipelit.store.schema import agent_files


class Shelf(msgspec.Struct, frozen=True):
    """Whose files: those of a workflow and a user."""

    workflow_id: int
    user_key: str


def list_paths(conn: Connection, shelf: Shelf, *, limit: int) -> Sequence[str]:
    """Return the paths of the files, in order."""
    statement = select(agent_files.c.path).where(*_on(shelf)).order_by(agent_files.c.path)
    return list(conn.scalars(statement.limit(limit)))


def read(conn: Connection, shelf: Shelf, path: str) -> str | None:
    """Return the text of a file; None: there is none."""
    statement = select(agent_files.c.content).where(*_on(shelf), agent_files.c.path == path)
    return conn.scalar(statement)


def room_beside(conn: Connection, shelf: Shelf, path: str) -> tuple[int, int]:
    """Return the number and the bytes of the files other than *path*."""
    statement = select(func.count(), func.coalesce(func.sum(agent_files.c.size), 0))
    row = conn.execute(statement.where(*_on(shelf), agent_files.c.path != path)).one()
    return int(row[0]), int(row[1])


def write(conn: Connection, shelf: Shelf, path: str, content: str, *, now: datetime) -> None:
    """Make a file, or replace its text."""
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    keys = {**msgspec.structs.asdict(shelf), "path": path}
    values = {"content": content, "size": len(content.encode()), "updated_at": now}
    statement = dialect.insert(agent_files).values(**keys, **values)
    conn.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=values))


def _on(shelf: Shelf) -> tuple[ColumnElement[bool], ...]:
    return (
        agent_files.c.workflow_id == shelf.workflow_id,
        agent_files.c.user_key == shelf.user_key,
    )

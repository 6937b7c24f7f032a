"""Workspaces: directories in which sandboxed code works. Contract: beyond.md §10."""

from datetime import datetime

from sqlalchemy import Connection, insert

from pipelit.store.schema import workspaces


def insert_workspace(
    conn: Connection, *, owner_id: int, name: str, path: str, created_at: datetime
) -> int:
    """Register a directory as a workspace without network and variables; return its id."""
    statement = insert(workspaces).values(
        owner_id=owner_id, name=name, path=path, env_vars=[], created_at=created_at
    )
    return int(conn.execute(statement.returning(workspaces.c.id)).scalar_one())

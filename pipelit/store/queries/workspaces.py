"""Workspaces: directories in which sandboxed code works. Contract: beyond.md §10."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipelit.store.schema import workspaces


class NameTaken(Exception):
    """Another workspace has the name."""


class WorkspaceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace as stored."""

    id: int
    owner_id: int | None
    name: str
    path: str
    allow_network: bool
    env_vars: list[dict[str, Any]]
    created_at: datetime


_COLUMNS = tuple(workspaces.c[name] for name in WorkspaceRow.__struct_fields__)


def find_workspace(conn: Connection, workspace_id: int) -> WorkspaceRow | None:
    """Return the workspace *workspace_id*."""
    return _first(conn, workspaces.c.id == workspace_id)


def find_workspace_by_name(conn: Connection, name: str) -> WorkspaceRow | None:
    """Return the workspace called *name*."""
    return _first(conn, workspaces.c.name == name)


def list_workspaces(
    conn: Connection, *, owners: Collection[int] | None, limit: int, offset: int
) -> tuple[Sequence[WorkspaceRow], int]:
    """Return a page of the workspaces of *owners* (None: all), oldest first, and their number."""
    wanted = _owned(owners)
    total = conn.scalar(select(func.count()).select_from(workspaces).where(*wanted)) or 0
    page = select(*_COLUMNS).where(*wanted).order_by(workspaces.c.id).limit(limit).offset(offset)
    return [WorkspaceRow(**row) for row in conn.execute(page).mappings()], total


def list_paths(conn: Connection) -> Sequence[str]:
    """Return the directories of all workspaces."""
    return list(conn.scalars(select(workspaces.c.path)))


def insert_workspace(
    conn: Connection,
    *,
    owner_id: int,
    name: str,
    path: str,
    created_at: datetime,
    allow_network: bool = False,
    env_vars: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Register a directory as a workspace; return its id.

    Raises:
        NameTaken: the unit has to end with it.
    """
    statement = insert(workspaces).values(
        owner_id=owner_id,
        name=name,
        path=path,
        allow_network=allow_network,
        env_vars=list(env_vars),
        created_at=created_at,
    )
    try:
        return int(conn.execute(statement.returning(workspaces.c.id)).scalar_one())
    except IntegrityError as error:
        raise NameTaken from error


def update_workspace(conn: Connection, workspace_id: int, values: Mapping[str, Any]) -> None:
    """Change columns of a workspace."""
    conn.execute(update(workspaces).where(workspaces.c.id == workspace_id).values(**values))


def delete_workspaces(
    conn: Connection, ids: Collection[int], *, owners: Collection[int] | None, but: str
) -> None:
    """Delete those of *ids* that belong to *owners* (None: anybody), but never one called *but*."""
    doomed = (workspaces.c.id.in_(ids), workspaces.c.name != but, *_owned(owners))
    conn.execute(delete(workspaces).where(*doomed))


def _owned(owners: Collection[int] | None) -> list[ColumnElement[bool]]:
    return [] if owners is None else [workspaces.c.owner_id.in_(owners)]


def _first(conn: Connection, condition: ColumnElement[bool]) -> WorkspaceRow | None:
    row = conn.execute(select(*_COLUMNS).where(condition)).mappings().first()
    return None if row is None else WorkspaceRow(**row)

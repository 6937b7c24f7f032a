"""Credentials. Their secrets pass through here encrypted. Contract: credentials.md."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from pipelit.store.schema import credentials, nodes, workflows


class StoredDetail(msgspec.Struct, frozen=True):
    """The fields of a credential's type that are not at their default."""

    clear: dict[str, Any]
    secret: dict[str, str]
    """Ciphertexts by field: everything that a change of the encryption key re-encrypts."""


class CredentialRow(msgspec.Struct, frozen=True, kw_only=True):
    """A credential as stored."""

    id: int
    created_by_id: int | None
    name: str
    credential_type: str
    detail: StoredDetail
    created_at: datetime
    updated_at: datetime


class NewCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential about to be stored."""

    created_by_id: int
    name: str
    credential_type: str
    detail: StoredDetail
    created_at: datetime


_COLUMNS = tuple(credentials.c[name] for name in CredentialRow.__struct_fields__)


def find_credential(conn: Connection, credential_id: int) -> CredentialRow | None:
    """Return the credential *credential_id*."""
    statement = select(*_COLUMNS).where(credentials.c.id == credential_id)
    row = conn.execute(statement).mappings().first()
    return None if row is None else _build(row)


def list_credentials(
    conn: Connection, *, limit: int, offset: int
) -> tuple[Sequence[CredentialRow], int]:
    """Return a page of all credentials, oldest first, and how many there are."""
    total = conn.scalar(select(func.count()).select_from(credentials)) or 0
    statement = select(*_COLUMNS).order_by(credentials.c.id).limit(limit).offset(offset)
    rows = conn.execute(statement).mappings()
    return [_build(row) for row in rows], total


def list_gateway_details(conn: Connection) -> list[dict[str, Any]]:
    """Return the clear fields of all credentials of type `gateway`, oldest first."""
    statement = select(credentials.c.detail).where(credentials.c.credential_type == "gateway")
    return [row["clear"] for row in conn.scalars(statement.order_by(credentials.c.id))]


def find_gateway_ids(
    conn: Connection, ids: Collection[int], *, created_by: Collection[int] | None
) -> dict[int, str]:
    """Return {id: the gateway's id} of those credentials that the gateway knows.

    Args:
        ids: which.
        created_by: only those of these users; None: anybody's.
    """
    statement = select(credentials.c.id, credentials.c.detail).where(
        *_of(ids, created_by), credentials.c.credential_type == "gateway"
    )
    rows = conn.execute(statement)
    return {row.id: row.detail["clear"]["gateway_credential_id"] for row in rows}


def insert_credential(conn: Connection, new: NewCredential) -> int:
    """Store *new*; return its id."""
    values = {name: getattr(new, name) for name in new.__struct_fields__}
    statement = insert(credentials).values(**values, updated_at=new.created_at)
    return int(conn.execute(statement.returning(credentials.c.id)).scalar_one())


def replace_credential(conn: Connection, old: CredentialRow, new: CredentialRow) -> bool:
    """Write *new* over *old*; return False, changing nothing, if it is not *old* any more."""
    if find_credential(conn, old.id) != old:
        return False
    statement = update(credentials).where(credentials.c.id == old.id)
    conn.execute(statement.values(name=new.name, detail=new.detail, updated_at=new.updated_at))
    return True


def delete_credentials(
    conn: Connection, ids: Collection[int], *, created_by: Collection[int] | None
) -> Sequence[int]:
    """Delete those of *ids* that exist and were created by these users (None: by anybody).

    Nodes that use one lose the reference, which is a change of their workflow.

    Returns:
        The ids of the deleted.
    """
    wanted = _of(ids, created_by)
    doomed = list(conn.scalars(select(credentials.c.id).where(*wanted)))
    if doomed:
        _touch_workflows_using(conn, doomed)
        conn.execute(delete(credentials).where(credentials.c.id.in_(doomed)))
    return doomed


def _of(ids: Collection[int], created_by: Collection[int] | None) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [credentials.c.id.in_(ids)]
    if created_by is not None:
        wanted.append(credentials.c.created_by_id.in_(created_by))
    return wanted


def _build(row: RowMapping) -> CredentialRow:
    return CredentialRow(**{**row, "detail": StoredDetail(**row["detail"])})


def _touch_workflows_using(conn: Connection, ids: Collection[int]) -> None:
    using = select(nodes.c.workflow_id).where(
        or_(nodes.c.llm_credential_id.in_(ids), nodes.c.credential_id.in_(ids))
    )
    moved = update(workflows).where(workflows.c.id.in_(using))
    conn.execute(moved.values(version=workflows.c.version + 1))

"""How an execution stands before somebody takes it up. Contract: engine.md §10.7."""

import msgspec
from sqlalchemy import Connection, select

from pipelit.store.schema import executions


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Status and owner of an execution (None: released), and the parent of a child."""

    status: str
    owner: str | None
    parent_execution_id: str | None


def find_standing(conn: Connection, execution_id: str) -> Standing | None:
    """Return how an execution stands, and keep others from taking it up before this unit ends."""
    columns = (executions.c[name] for name in Standing.__struct_fields__)
    statement = select(*columns).where(executions.c.id == execution_id).with_for_update()
    row = conn.execute(statement).mappings().one_or_none()
    return None if row is None else Standing(**row)

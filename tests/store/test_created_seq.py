"""Executions are numbered in the order of their creation, by several servers, too."""

from contextlib import ExitStack

import pytest
from sqlalchemy import URL, Connection, insert, select

from pipelit.store import schema
from pipelit.store.database import Purpose, open_engine
from pipelit.store.migrate import Migrations
from pipelit.store.queries.executions import NewExecution, create
from tests.kit.flows import ADA, START, store_workflow

pytestmark = pytest.mark.slow


def new(execution_id: str) -> NewExecution:
    return NewExecution(
        id=execution_id,
        workflow_id=1,
        trigger_node_id="t",
        user_id=ADA,
        thread_id=execution_id,
        serial=False,
        source="manual",
        trigger_payload={},
        trigger={},
        limit_seconds=900,
        created_at=START,
    )


def prepare(conn: Connection) -> None:
    ada = {"id": ADA, "username": "ada", "role": "normal", "created_at": START}
    conn.execute(insert(schema.users), ada)
    store_workflow(conn, ("t > a",), "flow", {})


def test_two_servers_that_create_at_once_do_not_collide(postgres_url: URL) -> None:
    """Neither sees what the other has not committed."""
    engine = open_engine(postgres_url, Purpose.MIGRATE, size=2)
    Migrations().upgrade(engine)
    with engine.begin() as conn:
        prepare(conn)
    with ExitStack() as stack:
        one, other = (stack.enter_context(engine.begin()) for _ in range(2))
        create(one, new("a"))
        create(other, new("b"))
        create(one, new("c"))
    with engine.connect() as conn:
        order = schema.executions.c.created_seq
        found = conn.scalars(select(schema.executions.c.id).order_by(order)).all()
    engine.dispose()

    assert found == ["a", "b", "c"]

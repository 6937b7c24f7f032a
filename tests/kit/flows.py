"""What the tests of actors let nodes do, and the workflows they do it in."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio
from sqlalchemy import URL, Connection, insert

from pipelit.engine.definition import NodeDef
from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall
from pipelit.nodes.templates import ResolvedConfig
from pipelit.store import schema
from tests.engine.runs import edges_of, nodes_of

START = datetime(2026, 2, 3, 8, 15, tzinfo=UTC)
ADA, BOB = 1, 2


class Verbatim:
    """Resolves nothing: a config is what it is."""

    async def resolve(self, node: NodeDef, context: Any) -> ResolvedConfig:
        await trio.lowlevel.checkpoint()
        return ResolvedConfig(dict(node.config))


class Gate:
    """A component that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.calls: list[NodeCall] = []
        self.arrived = trio.Event()
        self.open = trio.Event()

    async def __call__(self, call: NodeCall) -> Outcome:
        self.calls.append(call)
        self.arrived.set()
        await self.open.wait()
        return Outcome(ports={"output": call.node.node_id})


def wait_for(seconds: float) -> Component:
    """Return a component that makes a timed wait."""

    async def component(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Outcome(ports={"output": "waited"}, delay_seconds=seconds)

    return component


def leave_behind(url: URL, *, epoch: int = 1) -> None:
    """Let it look as if the server of *epoch* had died instead of stopping in order."""
    assert url.database is not None
    with closing(sqlite3.connect(url.database)) as conn:
        conn.execute(
            "UPDATE executions SET owner = 'server', epoch = ? WHERE status = 'running'", [epoch]
        )
        conn.commit()


def dispatch(components: dict[str, Component], component_type: str) -> Component:
    """Return what a type runs: what its node, or its type, is to do; else it succeeds."""

    async def component(call: NodeCall) -> Outcome:
        own = components.get(call.node.node_id) or components.get(component_type) or succeed
        return await own(call)

    return component


async def succeed(call: NodeCall) -> Outcome:
    """Succeed at once."""
    await trio.lowlevel.checkpoint()
    return Outcome(ports={"output": call.node.node_id})


def store_workflow(
    conn: Connection, edges: Sequence[str], slug: str, config: Mapping[str, dict[str, Any]]
) -> int:
    """Store a workflow of Ada's with the nodes that *edges* name; return its id."""
    flow = edges_of(*edges)
    row = {"owner_id": ADA, "name": slug, "slug": slug, "created_at": START, "updated_at": START}
    made = insert(schema.workflows).values(**row).returning(schema.workflows.c.id)
    workflow_id = int(conn.execute(made).scalar_one())
    for node in nodes_of(flow):
        conn.execute(
            insert(schema.nodes).values(
                workflow_id=workflow_id,
                node_id=node.node_id,
                component_type=node.component_type,
                config={"extra_config": config.get(node.node_id, {})},
                updated_at=START,
            )
        )
    for edge in flow:
        values = msgspec.structs.asdict(edge)
        del values["id"]
        conn.execute(insert(schema.edges).values(workflow_id=workflow_id, **values))
    return workflow_id

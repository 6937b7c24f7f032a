"""Compiled plans, shared by all executions of one workflow version.

Bounded: the least recently used plan is forgotten and compiled again when it is needed.
"""

from collections import OrderedDict
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection

from pipelit.engine.graph import Plan, build_snapshot
from pipelit.engine.validate import validate_scope
from pipelit.store import Store
from pipelit.store.queries.edges import list_edges
from pipelit.store.queries.nodes import list_nodes

CAPACITY = 256

_Key: TypeAlias = tuple[int, int, str | None]


class Compiled(msgspec.Struct, frozen=True):
    """A plan, its stored snapshot, and the errors of its scope (engine.md §4.4)."""

    plan: Plan
    snapshot: Any
    problems: tuple[str, ...]


class Plans:
    """A cache from (workflow, version, trigger) to the compiled plan."""

    def __init__(self, store: Store, *, capacity: int = CAPACITY) -> None:
        self._store = store
        self._capacity = capacity
        self._compiled: OrderedDict[_Key, Compiled] = OrderedDict()

    async def get(self, workflow_id: int, version: int, trigger_node_id: str | None) -> Compiled:
        """Return the plan of a workflow as it is now.

        A version that is newer by the time it is read is compiled and kept under the older key
        once: the next caller asks with the newer version.
        """
        key = (workflow_id, version, trigger_node_id)
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]

        def compile_now(conn: Connection) -> Compiled:
            return _compile(conn, workflow_id, trigger_node_id)

        compiled = await self._store.read(compile_now, patient=True)
        self._compiled[key] = compiled
        while len(self._compiled) > self._capacity:
            self._compiled.popitem(last=False)
        return compiled


def _compile(conn: Connection, workflow_id: int, trigger_node_id: str | None) -> Compiled:
    nodes = list_nodes(conn, workflow_id)
    edges = list_edges(conn, workflow_id)
    snapshot = build_snapshot(nodes, edges, trigger_node_id)
    scope = [node.node_id for node in snapshot.nodes]
    return Compiled(
        plan=Plan(snapshot),
        snapshot=msgspec.to_builtins(snapshot),
        problems=validate_scope(nodes, edges, scope),
    )

"""Who stands behind a platform tool: the owner it acts for, the agent it is attached to.

Contract: node-types.md §1 "Owner", "Parent agent"; engine.md §27.4.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from pipelit.engine.definition import EdgeDef, NodeDef
from pipelit.engine.dsl import Caller, Checked, ModelChoice
from pipelit.engine.graph import Plan, Snapshot, edge_order
from pipelit.nodes.whoami import Parent
from pipelit.services.documents import check_stored
from pipelit.services.model_lists import ModelLists
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries.edges import edges_of_node, list_edges
from pipelit.store.queries.health import find_workflow_owner
from pipelit.store.queries.nodes import find_node, list_nodes

NO_KEY = 0
"""The `key_id` of a principal that presented none."""

_TOOL_LABELS = frozenset({"tool", "memory"})


class AgentLookup:
    """Finds the agents of tools in the stored workflows."""

    def __init__(self, store: Store, model_lists: ModelLists | None = None) -> None:
        self._store = store
        self._model_lists = model_lists or ModelLists()

    async def find_parent(self, workflow_id: int, tool_id: str) -> Parent | None:
        """Return the agent a tool node is attached to; None if it is attached to none."""
        return await self._store.read(
            partial(find_parent, workflow_id=workflow_id, tool_id=tool_id)
        )

    async def check_topology(self, text: str, workflow_id: int, tool_id: str) -> Checked:
        """Tell whether a document compiles for the agent of a tool; nothing is stored."""

        def check(conn: Connection) -> Checked:
            parent = find_parent(conn, workflow_id, tool_id)
            caller = None if parent is None else find_caller(conn, workflow_id, parent.node_id)
            principal = find_workflow_principal(conn, workflow_id)
            return check_stored(conn, text, self._model_lists, principal, caller)

        return await self._store.read(check)


def find_workflow_principal(conn: Connection, workflow_id: int) -> Principal | None:
    """Return the owner of a workflow, for whom its platform tools act."""
    owner = find_workflow_owner(conn, workflow_id)
    if owner is None:
        return None
    is_agent = owner.kind == "agent"
    return Principal(
        user_id=owner.id,
        username=owner.username,
        role="normal" if is_agent else owner.role,
        key_id=NO_KEY,
        is_agent=is_agent,
        acts_for=owner.created_by_id if is_agent else None,
    )


def find_parent(conn: Connection, workflow_id: int, tool_id: str) -> Parent | None:
    """Return the target of the first tool or memory edge of a node."""
    edges = edge_order(edges_of_node(conn, workflow_id, tool_id))
    for edge in edges:
        if edge.source_node_id == tool_id and edge.edge_label in _TOOL_LABELS:
            node_id = edge.target_node_id
            return Parent(node_id, find_node(conn, workflow_id, node_id))
    return None


def find_caller(conn: Connection, workflow_id: int, node_id: str) -> Caller:
    """Return an agent as the donor of its model and of its tools' settings."""
    return _caller(list_nodes(conn, workflow_id), list_edges(conn, workflow_id), node_id)


def _caller(nodes: Sequence[NodeDef], edges: Sequence[EdgeDef], node_id: str) -> Caller:
    known = {node.node_id for node in nodes}
    kept = (edge for edge in edge_order(edges) if edge.source_node_id in known)
    plan = Plan(Snapshot(trigger_node_id=None, nodes=tuple(nodes), edges=tuple(kept), walked=()))
    model = plan.model_of(node_id)
    tools = reversed(plan.attached(node_id, *_TOOL_LABELS))
    return Caller(
        node_id=node_id,
        model=None if model is None else _choice(model),
        tools={tool.component_type: tool.extra for tool in tools},  # the first of a type stays
    )


def _choice(model: NodeDef) -> ModelChoice | None:
    name = model.config.get("model_name")
    if not name:
        return None
    return ModelChoice(
        credential_id=model.config.get("llm_credential_id"),
        model_name=name,
        temperature=model.config.get("temperature"),
    )

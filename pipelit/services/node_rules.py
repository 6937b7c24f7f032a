"""What holds when a node changes: its links lead somewhere, its edges still fit and follow it.

Contract: nodes.md "PATCH rules".
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.engine import specs
from pipelit.engine.definition import EdgeDef
from pipelit.engine.edges import first_violation
from pipelit.errors import BadRequest, Invalid, NotFound
from pipelit.services.canvas import WORKFLOW_NOT_FOUND, can_read
from pipelit.services.principal import Principal
from pipelit.store.queries import edges as edge_queries
from pipelit.store.queries import nodes as queries
from pipelit.store.queries.credentials import find_credential
from pipelit.store.queries.nodes import NodeRow
from pipelit.store.queries.workflows import find_workflow_by_id

CREDENTIAL_NOT_FOUND = "Credential not found."
NOT_AN_LLM = "Credential is not of type 'llm'."


def interrupts_before(component_type: str, fields: Mapping[str, Any]) -> bool:
    """Whether the node asks before it runs: a confirmation always does, whatever is sent."""
    return component_type == "human_confirmation" or fields.get("interrupt_before", False)


def merge_fields(old: NodeRow, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sent *fields* as the node will hold them; a config is merged key by key."""
    component_type = fields.get("component_type", old.component_type)
    before = {"interrupt_before": old.interrupt_before, **fields}
    return {
        **fields,
        "config": specs.complete_config(component_type, {**old.config, **fields.get("config", {})}),
        "interrupt_before": interrupts_before(component_type, before),
    }


def kept_config(old: NodeRow, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config fields that were sent and that the resulting type stores."""
    kept = specs.kept_fields(fields.get("component_type", old.component_type))
    return {name: value for name, value in fields.get("config", {}).items() if name in kept}


def check_references(
    conn: Connection, principal: Principal, fields: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Refuse links that lead nowhere. Everybody may use every credential."""
    subworkflow_id = fields.get("subworkflow_id")
    if subworkflow_id is not None:
        row = find_workflow_by_id(conn, subworkflow_id)
        if row is None or not can_read(principal, row):
            raise NotFound(WORKFLOW_NOT_FOUND)
    linked = {
        name: find_credential(conn, config[name])
        for name in ("llm_credential_id", "credential_id")
        if config.get(name) is not None
    }
    if None in linked.values():
        raise NotFound(CREDENTIAL_NOT_FOUND)
    model_credential = linked.get("llm_credential_id")
    if model_credential is not None and model_credential.credential_type != "llm":
        raise BadRequest(NOT_AN_LLM)


def apply_change(
    conn: Connection, workflow_id: int, old: NodeRow, new: NodeRow
) -> tuple[list[EdgeDef], list[str]]:
    """Write *new* over *old*; return the edges that followed a new id, and removed schedules."""
    jobs: list[str] = []
    values = msgspec.structs.asdict(new)
    del values["id"]
    queries.update_node(conn, new.id, values)
    if new.component_type != old.component_type:
        _check_edges(conn, workflow_id, old)
        if old.component_type == "trigger_schedule":
            jobs = queries.delete_schedules(conn, workflow_id, old.node_id)
    if new.node_id == old.node_id:
        return [], jobs
    queries.rename_schedules(conn, workflow_id, old.node_id, new.node_id)
    return _rename_in_edges(conn, workflow_id, old.node_id, new.node_id), jobs


def _check_edges(conn: Connection, workflow_id: int, node: NodeRow) -> None:
    """Refuse the type *node* has now if one of its edges does not allow it."""
    edges = edge_queries.edges_of_node(conn, workflow_id, node.node_id)
    ends = {end for edge in edges for end in (edge.source_node_id, edge.target_node_id)}
    types = queries.node_types(conn, workflow_id, ends)
    violations = [first_violation(edge, types) for edge in edges]
    problems = [message for found in violations if found for message in found.messages]
    if problems:
        raise Invalid(problems=problems)


def _rename_in_edges(conn: Connection, workflow_id: int, old: str, new: str) -> list[EdgeDef]:
    renamed = []
    for edge in edge_queries.edges_naming(conn, workflow_id, old):
        mapping = edge.condition_mapping
        followed = msgspec.structs.replace(
            edge,
            source_node_id=new if edge.source_node_id == old else edge.source_node_id,
            target_node_id=new if edge.target_node_id == old else edge.target_node_id,
            condition_mapping=mapping
            and {route: new if target == old else target for route, target in mapping.items()},
        )
        if followed != edge:
            edge_queries.update_edge(conn, followed)
            renamed.append(followed)
    return renamed

"""Which workflow a child runs, from which trigger, and whether it may.

Runs inside a read of the store. Contract: engine.md §15.2, §15.3, §15.7.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.engine.error_dispatch import first_trigger
from pipelit.nodes.base import config_error
from pipelit.nodes.children import SELF, ChildCall
from pipelit.store.queries.children import MAX_DEPTH
from pipelit.store.queries.nodes import NodeRow, list_triggers
from pipelit.store.queries.tasks import is_task_of
from pipelit.store.queries.workflows import WorkflowRow, find_workflow, find_workflow_by_id

MAX_SPAWN_DEPTH = 3
TRIGGERS = ("trigger_workflow", "trigger_chat", "trigger_manual", "trigger_webhook")
"""What starts a child when nothing is said of it, the first kind there is."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The execution that wants a child. `depth`: its own."""

    workflow_id: int
    workflow_slug: str
    owner_id: int
    trigger_node_id: str | None
    depth: int


class Target(msgspec.Struct, frozen=True):
    """A workflow that may run as a child, and the trigger it starts from."""

    workflow: WorkflowRow
    trigger_node_id: str | None


def check_depth(caller: Caller, *, spawned: bool) -> None:
    """Refuse children of an execution that is too deep.

    Raises:
        NodeError: `ConfigError`.
    """
    if spawned and caller.depth >= MAX_SPAWN_DEPTH:
        raise config_error(
            f"Spawn depth limit reached ({MAX_SPAWN_DEPTH}). Cannot spawn further child workflows."
        )
    if caller.depth >= MAX_DEPTH:
        raise config_error(f"Subworkflow nesting limit reached ({MAX_DEPTH})")


def find_target(conn: Connection, caller: Caller, call: ChildCall, *, spawned: bool) -> Target:
    """Return what a call runs.

    Raises:
        NodeError: `ConfigError`; there is no such workflow, or it may not be called; or there is
            no such task in an epic of the owner, whose budget the child would use.
    """
    is_self = spawned and call.target == SELF
    workflow = _find(conn, caller, call, is_self=is_self)
    if workflow is None:
        raise config_error(f"Target workflow not found: '{call.target}'")
    if not workflow.is_active:
        raise config_error(f"Target workflow '{workflow.slug}' is inactive")
    if workflow.owner_id != caller.owner_id and not workflow.is_public:
        raise config_error(f"Not allowed to call workflow '{workflow.slug}'")
    if call.task_id is not None and not is_task_of(conn, call.task_id, caller.owner_id):
        raise config_error(f"Task not found: '{call.task_id}'")
    if is_self:
        return Target(workflow, caller.trigger_node_id)
    triggers = list_triggers(conn, workflow.id)
    if not call.explicit:
        chosen = first_trigger(triggers, TRIGGERS)
        return Target(workflow, None if chosen is None else chosen.node_id)
    accepting = [node for node in triggers if _accepts(node, caller)]
    chosen = first_trigger(accepting, ("trigger_workflow",))
    if chosen is None:
        raise config_error(
            f"No workflow trigger in '{workflow.slug}' accepts calls from '{caller.workflow_slug}'"
        )
    return Target(workflow, chosen.node_id)


def _find(
    conn: Connection, caller: Caller, call: ChildCall, *, is_self: bool
) -> WorkflowRow | None:
    if is_self:
        return find_workflow_by_id(conn, caller.workflow_id)
    if call.target:
        return find_workflow(conn, call.target)
    return None if call.target_id is None else find_workflow_by_id(conn, call.target_id)


def _accepts(node: NodeRow, caller: Caller) -> bool:
    config: Any = node.config.get("trigger_config")
    wanted = config.get("source_workflow") if isinstance(config, dict) else None
    return not wanted or wanted == caller.workflow_slug

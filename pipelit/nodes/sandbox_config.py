"""What the nodes that run processes read of their config. Contract: engine.md §29.4."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelit.engine.definition import NodeDef
from pipelit.engine.values import to_integer, to_number
from pipelit.nodes.base import ToolContext, config_error
from pipelit.nodes.sandbox import Sandbox
from pipelit.nodes.whoami import FindParent


@dataclass(frozen=True, kw_only=True)
class SandboxParts:
    """What these nodes are built with."""

    sandbox: Sandbox
    find_parent: FindParent


def read_workspace(extra: Mapping[str, Any]) -> int | None:
    """Return the workspace a config names; None: none.

    Raises:
        NodeError: `ConfigError`; it is no id.
    """
    value = extra.get("workspace_id")
    if value is None or value == "":
        return None
    workspace_id = to_integer(value)
    if workspace_id is None:
        raise config_error("'workspace_id' must be a number")
    return workspace_id


async def find_tool_workspace(
    node: NodeDef, extra: Mapping[str, Any], context: ToolContext, find_parent: FindParent
) -> int | None:
    """Return the workspace of a tool: its own, else that of the agent it is attached to."""
    workspace_id = read_workspace(extra)
    if workspace_id is not None:
        return workspace_id
    parent = await find_parent(context.caller.workflow_id, node.node_id)
    if parent is None or parent.node is None:
        return None
    return read_workspace(parent.node.extra)


def read_seconds(extra: Mapping[str, Any], key: str, *, default: int, most: int) -> float:
    """Return a time limit of a config, kept within 1 and *most* seconds.

    Raises:
        NodeError: `ConfigError`; it is no number.
    """
    value = extra.get(key)
    seconds = default if value is None else to_number(value)
    if seconds is None:
        raise config_error(f"'{key}' must be a number")
    return float(min(max(seconds, 1), most))

"""`whoami`: tells an agent which node it is, and how to change itself.

Contract: node-types.md §8.3.
"""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import msgspec

from pipelit.engine.definition import NodeDef
from pipelit.nodes.base import NodeServices, Tool, ToolContext, ToolError
from pipelit.nodes.tool_schema import tool_spec

MAX_PROMPT_CHARS = 1000

_WHOAMI = tool_spec("whoami", "Get your own workflow, node id, configuration and how to change it.")
_INSTRUCTIONS = (
    "Send example_body, with your own values, to the endpoint with this method.",
    "Only the keys you send change; extra_config is replaced as a whole, so send all of it.",
    "A change counts from the next execution on; this one keeps the configuration it has.",
    "The request needs the API key of an account that may change this workflow.",
)


class Parent(msgspec.Struct, frozen=True):
    """The agent a tool node is attached to, as stored now. `node` is None if it is gone."""

    node_id: str
    node: NodeDef | None


FindParent: TypeAlias = Callable[[int, str], Awaitable[Parent | None]]
"""(workflow id, node id of the tool) -> the agent; None if the tool is attached to none."""


def whoami_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, find_parent: FindParent
) -> tuple[Tool, ...]:
    """Offer `whoami`."""

    async def run(_arguments: dict[str, Any], context: ToolContext) -> str:
        parent = await find_parent(context.caller.workflow_id, node.node_id)
        if parent is None:
            raise _failed(
                "This whoami tool is not connected to any agent node",
                hint="Connect this tool to an agent via a 'tool' edge",
            )
        if parent.node is None:
            raise _failed(f"Agent node '{parent.node_id}' not found")
        caller = context.caller
        return _dump(introduce(parent.node, caller.workflow_slug, caller.workflow_id))

    return (Tool(spec=_WHOAMI, node=node, run=run),)


def introduce(node: NodeDef, workflow_slug: str, workflow_id: int) -> dict[str, Any]:
    """Return what an agent is told of itself; its config as stored, not rendered. Pure."""
    prompt: str = node.config.get("system_prompt") or ""
    shown = prompt if len(prompt) <= MAX_PROMPT_CHARS else f"{prompt[:MAX_PROMPT_CHARS]}..."
    return {
        "identity": {
            "workflow_slug": workflow_slug,
            "workflow_id": workflow_id,
            "node_id": node.node_id,
            "component_type": node.component_type,
        },
        "current_config": {
            "system_prompt": shown,
            "system_prompt_length": len(prompt),
            "extra_config": dict(node.extra),
        },
        "self_modification": {
            "endpoint": f"/api/v1/workflows/{workflow_slug}/nodes/{node.node_id}/",
            "method": "PATCH",
            "example_body": {"config": {"system_prompt": "Your new system prompt"}},
            "instructions": list(_INSTRUCTIONS),
        },
    }


def _failed(error: str, **more: str) -> ToolError:
    return ToolError(error, told=_dump({"error": error, **more}))


_dump = partial(json.dumps, indent=2, ensure_ascii=False)

"""`validate_topology`: tells an agent whether workflow YAML compiles.

Contract: node-types.md §7.8.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
import structlog

from pipelit.engine.definition import NodeDef
from pipelit.engine.dsl import Checked
from pipelit.nodes.base import NodeServices, Tool, ToolContext, ToolError
from pipelit.nodes.tool_schema import tool_spec

_VALIDATE = tool_spec(
    "validate_topology",
    "Check workflow YAML. Returns JSON with errors.",
    {"topology_yaml": {"type": "string", "description": "Workflow in YAML"}},
    required=("topology_yaml",),
)

log = structlog.get_logger(__name__)

CheckTopology: TypeAlias = Callable[[str, int, str], Awaitable[Checked]]
"""(YAML, workflow id, node id of the tool) -> what the document is worth to the tool's agent."""


def validate_topology_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, check: CheckTopology
) -> tuple[Tool, ...]:
    """Offer `validate_topology`."""

    async def run(arguments: dict[str, Any], context: ToolContext) -> str:
        text: str = arguments["topology_yaml"]
        if not text.strip():
            return _dump(_invalid("Empty topology YAML provided"))
        try:
            return _dump(await check(text, context.caller.workflow_id, node.node_id))
        except Exception as error:
            # The model reads that checking failed; the operator reads why.
            log.exception("topology cannot be checked")
            message = f"Validation error: {str(error) or type(error).__name__}"
            raise ToolError(message, told=_dump(_invalid(message))) from error

    return (Tool(spec=_VALIDATE, node=node, run=run),)


def _invalid(error: str) -> Checked:
    return Checked(valid=False, errors=(error,))


def _dump(checked: Checked) -> str:
    return json.dumps(msgspec.to_builtins(checked), ensure_ascii=False, separators=(",", ":"))

"""`system_health`: lets an agent look at the platform. Contract: node-types.md §8.11."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from pipelit.engine.definition import NodeDef
from pipelit.nodes.base import NodeServices, Tool, ToolContext
from pipelit.nodes.tool_schema import tool_spec

_CHECK = tool_spec("check_system_health", "Report platform health with issues.")

ReportHealth: TypeAlias = Callable[[int], Awaitable[Mapping[str, Any]]]
"""(workflow id) -> the report, with the executions and jobs that the workflow's owner may see."""


def system_health_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, report: ReportHealth
) -> tuple[Tool, ...]:
    """Offer `check_system_health`."""

    async def run(_arguments: dict[str, Any], context: ToolContext) -> str:
        return json.dumps(await report(context.caller.workflow_id), ensure_ascii=False)

    return (Tool(spec=_CHECK, node=node, run=run),)

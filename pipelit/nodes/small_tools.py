"""`calculator` and `datetime`, as steps and as tools. Contract: node-types.md §7.4, §7.5."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pipelit.engine.calculator import CalculatorError, calculate
from pipelit.engine.definition import NodeDef
from pipelit.engine.outcome import Outcome
from pipelit.engine.values import to_text
from pipelit.nodes.base import (
    NodeCall,
    NodeError,
    NodeServices,
    Tool,
    ToolContext,
    ToolError,
    config_error,
)
from pipelit.nodes.tool_schema import tool_spec

_CALCULATOR = tool_spec(
    "calculator",
    "Evaluate an arithmetic expression.",
    {"expression": {"type": "string", "description": "Arithmetic expression"}},
    required=("expression",),
)
_GET_DATETIME = tool_spec("get_datetime", "Get the current date and time.")


async def calculator(call: NodeCall) -> Outcome:
    """Evaluate the expression of the config."""
    expression = to_text(call.extra.get("expression"))
    if not expression.strip():
        raise config_error("'expression' is required")
    try:
        return Outcome(ports={"result": calculate(expression)})
    except CalculatorError as error:
        raise NodeError(str(error), code="ToolError", retryable=False) from error


def calculator_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices
) -> tuple[Tool, ...]:
    """Offer `calculator`."""

    async def run(arguments: dict[str, Any], _context: ToolContext) -> str:
        try:
            return calculate(arguments["expression"])
        except CalculatorError as error:
            raise ToolError(str(error)) from error

    return (Tool(spec=_CALCULATOR, node=node, run=run),)


async def current_datetime(call: NodeCall) -> Outcome:
    """Tell the time in the zone of the config."""
    try:
        return Outcome(ports={"result": local_time(call.services.clock.now(), call.config)})
    except ToolError as error:
        raise NodeError(str(error), code="ToolError") from error


def datetime_tools(
    node: NodeDef, config: dict[str, Any], _services: NodeServices
) -> tuple[Tool, ...]:
    """Offer `get_datetime`."""

    async def run(_arguments: dict[str, Any], context: ToolContext) -> str:
        return local_time(context.clock.now(), config)

    return (Tool(spec=_GET_DATETIME, node=node, run=run),)


def local_time(now: datetime, config: dict[str, Any]) -> str:
    """Write *now* in the zone of a config, with the zone's abbreviation.

    Raises:
        ToolError: there is no such zone.
    """
    zone = to_text((config.get("extra_config") or {}).get("timezone")) or "UTC"
    try:
        return now.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S %Z")
    except (KeyError, ValueError, OSError) as error:
        raise ToolError(f"unknown timezone '{zone}'") from error

"""The `run_command` node, as step and as tool: a shell command in the sandbox.

Contract: node-types.md §7.1.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pipelit.engine.definition import NodeDef
from pipelit.engine.outcome import Outcome, Report
from pipelit.engine.values import to_text
from pipelit.llm.types import ToolSpec
from pipelit.nodes.agent_tools import shorten
from pipelit.nodes.base import (
    NodeCall,
    NodeError,
    NodeServices,
    Tool,
    ToolContext,
    ToolError,
    config_error,
)
from pipelit.nodes.process import TimedOut
from pipelit.nodes.sandbox import TRUNCATED, Completed, Job, Sandbox, tool_timeout
from pipelit.nodes.sandbox_config import (
    SandboxParts,
    find_tool_workspace,
    read_seconds,
    read_workspace,
)
from pipelit.nodes.tool_schema import tool_spec

DEFAULT_SECONDS = 300
MAX_SECONDS = 3600

_RUN_COMMAND = tool_spec(
    "run_command",
    "Run a shell command and return its output.",
    {"command": {"type": "string", "description": "Command for bash"}},
    required=("command",),
)


async def run_command(call: NodeCall, *, parts: SandboxParts) -> Outcome:
    """Run the configured command.

    Raises:
        NodeError: as the contract lists them; the output of a command that fails is a result,
            unless `fail_on_error` is set.
    """
    command = to_text(call.extra.get("command"))
    if not command.strip():
        raise config_error("'command' is required")
    seconds = min(_seconds(call.extra), call.remaining_seconds)
    try:
        completed = await parts.sandbox.run(
            _job(command, seconds),
            workflow_id=call.identity.workflow_id,
            workspace_id=read_workspace(call.extra),
        )
    except TimedOut as error:
        raise NodeError(_late(seconds), code="NodeTimeoutError") from error
    except (OSError, ValueError) as error:
        raise NodeError(_not_started(error), code="ToolError") from error
    if completed.exit_code and call.extra.get("fail_on_error") is True:
        raise NodeError(f"command failed with exit code {completed.exit_code}", code="ToolError")
    ports = {"result": show(completed), "exit_code": completed.exit_code}
    return Outcome(ports=ports, report=Report(warnings=(TRUNCATED,) * completed.truncated))


def run_command_tools(
    node: NodeDef, config: dict[str, Any], _services: NodeServices, *, parts: SandboxParts
) -> tuple[Tool, ...]:
    """Offer `run_command`."""
    extra = config.get("extra_config") or {}

    async def find_workspace(context: ToolContext) -> int | None:
        return await find_tool_workspace(node, extra, context, parts.find_parent)

    return (command_tool(_RUN_COMMAND, node, parts.sandbox, find_workspace, _seconds(extra)),)


def command_tool(
    spec: ToolSpec,
    node: NodeDef,
    sandbox: Sandbox,
    find_workspace: Callable[[ToolContext], Awaitable[int | None]],
    seconds: float = DEFAULT_SECONDS,
) -> Tool:
    """Return a tool that runs its argument `command` in a workspace."""

    async def run(arguments: dict[str, Any], context: ToolContext) -> str:
        try:
            completed = await sandbox.run(
                _job(arguments["command"], seconds),
                workflow_id=context.caller.workflow_id,
                workspace_id=await find_workspace(context),
            )
        except TimedOut as error:
            raise ToolError(_late(seconds)) from error
        except (OSError, ValueError) as error:
            raise ToolError(_not_started(error)) from error
        return show(completed)

    return Tool(spec=spec, node=node, run=run, timeout=tool_timeout(seconds))


def show(completed: Completed) -> str:
    """Return what is read of a command that ended, cut for a model."""
    text = completed.stdout
    if completed.stderr:
        text += f"\nSTDERR:\n{completed.stderr}"
    if completed.exit_code:
        text += f"\n[exit code: {completed.exit_code}]"
    return shorten(text or "(no output)")


def _seconds(extra: Mapping[str, Any]) -> float:
    return read_seconds(extra, "timeout", default=DEFAULT_SECONDS, most=MAX_SECONDS)


def _job(command: str, seconds: float) -> Job:
    return Job(command=("bash", "-c", command), seconds=seconds)


def _late(seconds: float) -> str:
    return f"command timed out after {seconds:g} seconds"


def _not_started(error: Exception) -> str:
    """Say why there is no process: the system refuses the command, mostly for its length."""
    reason = error.strerror if isinstance(error, OSError) else None
    return f"command cannot be started: {reason or error}"

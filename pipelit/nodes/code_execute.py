"""The `code_execute` node, as step and as tool: code that a model wrote, in the sandbox.

Contract: node-types.md §7.6.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelit.engine.code_scan import Language, find_forbidden
from pipelit.engine.definition import NodeDef
from pipelit.engine.outcome import Outcome, Report
from pipelit.engine.values import to_text
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
from pipelit.nodes.sandbox import TRUNCATED, Completed, Job, tool_timeout
from pipelit.nodes.sandbox_config import (
    SandboxParts,
    find_tool_workspace,
    read_seconds,
    read_workspace,
)
from pipelit.nodes.tool_schema import tool_spec

DEFAULT_SECONDS = 30
MAX_SECONDS = 300
NO_CODE = "No code provided to execute"

_CODE_EXECUTE = tool_spec(
    "code_execute",
    "Run Python or Bash code. Returns stdout, stderr and exit code.",
    {
        "code": {"type": "string", "description": "Code to run"},
        "language": {
            "type": "string",
            "default": "",
            "description": "python or bash; empty = configured default",
        },
    },
    required=("code",),
)


class _Program(NamedTuple):
    file: str
    command: tuple[str, ...]


_PROGRAMS: Mapping[Language, _Program] = {
    "python": _Program("/.job/main.py", ("python3",)),
    "bash": _Program("/.job/main.sh", ("bash", "-e")),
}
_LANGUAGES: Mapping[str, Language] = {name: name for name in _PROGRAMS}


class _Refused(Exception):
    """The code is not run; the text says why."""

    def __init__(self, message: str, *, told: str | None = None) -> None:
        super().__init__(message)
        self.told = f"Error: {message}" if told is None else told


async def code_execute(call: NodeCall, *, parts: SandboxParts) -> Outcome:
    """Run the configured code. That it fails is a result, too."""
    if call.extra.get("code") is None:
        raise config_error("'code' is required")
    seconds = min(_seconds(call.extra), call.remaining_seconds)
    try:
        language, job = _prepare(to_text(call.extra["code"]), "", call.extra, seconds)
        completed = await parts.sandbox.run(
            job,
            workflow_id=call.identity.workflow_id,
            workspace_id=read_workspace(call.extra),
        )
    except _Refused as error:
        raise NodeError(str(error), code="ToolError", retryable=False) from error
    except TimedOut as error:
        raise NodeError(_late(seconds), code="NodeTimeoutError") from error
    return Outcome(
        ports={"result": show(completed, language)},
        report=Report(warnings=(TRUNCATED,) * completed.truncated),
    )


def code_execute_tools(
    node: NodeDef, config: dict[str, Any], _services: NodeServices, *, parts: SandboxParts
) -> tuple[Tool, ...]:
    """Offer `code_execute`."""
    extra = config.get("extra_config") or {}
    seconds = _seconds(extra)

    async def run(arguments: dict[str, Any], context: ToolContext) -> str:
        try:
            language, job = _prepare(
                arguments["code"], arguments.get("language") or "", extra, seconds
            )
            completed = await parts.sandbox.run(
                job,
                workflow_id=context.caller.workflow_id,
                workspace_id=await find_tool_workspace(node, extra, context, parts.find_parent),
            )
        except _Refused as error:
            raise ToolError(str(error), told=error.told) from error
        except TimedOut as error:
            raise ToolError(_late(seconds), told=_late(seconds)) from error
        return show(completed, language)

    return (Tool(spec=_CODE_EXECUTE, node=node, run=run, timeout=tool_timeout(seconds)),)


def show(completed: Completed, language: Language) -> str:
    """Return what is read of code that ended, cut for a model."""
    lines = []
    if completed.stdout:
        lines.append(f"stdout:\n{completed.stdout}")
    if completed.stderr:
        lines.append(f"stderr:\n{completed.stderr}")
    lines.append(f"exit_code: {completed.exit_code}")
    last = completed.stdout.rstrip().rsplit("\n", 1)[-1].strip()
    if language == "python" and _is_json(last):
        lines.append(f"result: {last}")
    return shorten("\n".join(lines))


def _prepare(
    code: str, language: str, extra: Mapping[str, Any], seconds: float
) -> tuple[Language, Job]:
    if not code.strip():
        raise _Refused(NO_CODE)
    wanted = language or to_text(extra.get("language")) or "python"
    known = _LANGUAGES.get(wanted)
    if known is None:
        raise _Refused(f"Language '{wanted}' not supported. Use 'python' or 'bash'.")
    if extra.get("sandbox") is not False:
        pattern = find_forbidden(known, code)
        if pattern is not None:
            message = f"Security violation: Forbidden pattern detected: {pattern}"
            raise _Refused(message, told=message)
    program = _PROGRAMS[known]
    content = code.encode(errors="replace")
    command = (*program.command, program.file)
    return known, Job(command=command, seconds=seconds, files={program.file: content})


def _seconds(extra: Mapping[str, Any]) -> float:
    return read_seconds(extra, "timeout_seconds", default=DEFAULT_SECONDS, most=MAX_SECONDS)


def _late(seconds: float) -> str:
    return f"Execution timed out after {seconds:g} seconds"


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name}")

"""The deep agent: an agent with a list of things to do, files, and subagents.

Contract: node-types.md §5.2.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from pipelit.engine.outcome import Outcome, Usage
from pipelit.engine.values import to_text
from pipelit.nodes.agent import AgentParts, AgentRun
from pipelit.nodes.agent_files import Files, Search, file_tools, node_of
from pipelit.nodes.base import (
    Component,
    NodeCall,
    Tool,
    ToolContext,
    ToolError,
)
from pipelit.nodes.command import command_tool
from pipelit.nodes.disk_files import DiskFiles
from pipelit.nodes.kept_files import StateFiles
from pipelit.nodes.sandbox import Sandbox
from pipelit.nodes.sandbox_config import read_workspace
from pipelit.nodes.subagents import read_subagents, task_tool
from pipelit.nodes.tool_schema import tool_spec

MAX_TODOS = 200
_STATUSES = ("pending", "in_progress", "completed")

_WRITE_TODOS = tool_spec(
    "write_todos",
    "Replace your list of things to do. Keep it up to date while you work.",
    {
        "todos": {
            "type": "array",
            "description": "The whole list",
            "items": {
                "type": "object",
                "properties": {
                    "content": {"type": "string"},
                    "status": {"type": "string", "enum": list(_STATUSES)},
                },
                "required": ["content", "status"],
            },
        }
    },
    required=("todos",),
)
_EXECUTE = tool_spec(
    "execute",
    "Run a shell command in the workspace and return its output.",
    {"command": {"type": "string", "description": "Command for bash"}},
    required=("command",),
)


class Place(msgspec.Struct, frozen=True):
    """A directory of a workspace. `below`: the parts of the path to it."""

    workspace_id: int | None
    root: str
    below: tuple[str, ...] = ()


FindPlace: TypeAlias = Callable[[int, int | None, str], Awaitable[Place]]
"""(workflow id, workspace id, `filesystem_root_dir`) -> where its files are.

Raises `NodeError`: `ConfigError`, `SandboxUnavailable`.
"""
OpenStore: TypeAlias = Callable[[int, str], Files]
"""(workflow id, user) -> the files of the backend `store`."""


@dataclass(frozen=True, kw_only=True)
class DeepParts:
    """What deep agents are built from, beside what all agents are."""

    search: Search
    sandbox: Sandbox
    find_place: FindPlace
    open_store: OpenStore


def deep_agent_component(parts: AgentParts, deep: DeepParts) -> Component:
    """Return the component of type `deep_agent`."""

    async def open_tools(run: AgentRun) -> Sequence[Tool]:
        return await _open_tools(run, deep)

    async def deep_agent(call: NodeCall) -> Outcome:
        return await AgentRun(call, parts, open_tools).run()

    return deep_agent


async def _open_tools(run: AgentRun, deep: DeepParts) -> Sequence[Tool]:
    """Return the built-in tools that the config switches on."""
    extra, tools = run.call.extra, list[Tool]()
    if extra.get("enable_todos") is True:
        node = node_of(run.call.node, _WRITE_TODOS.name)
        tools.append(Tool(spec=_WRITE_TODOS, node=node, run=_todo_writer(run)))
    workspace_id = read_workspace(extra)
    if extra.get("enable_filesystem") is True or workspace_id is not None:
        tools += await _open_files(run, deep, workspace_id)
    subagents, warnings = read_subagents(extra.get("subagents"))
    run.count(Usage(), *warnings)
    if subagents:
        tools.append(task_tool(run, subagents, tuple(tools)))
    return tools


def _todo_writer(run: AgentRun) -> Callable[[dict[str, Any], ToolContext], Awaitable[str]]:
    async def write_todos(arguments: dict[str, Any], _context: ToolContext) -> str:
        todos = tuple(map(_read_todo, arguments["todos"]))
        if len(todos) > MAX_TODOS:
            raise ToolError(f"a list has at most {MAX_TODOS} entries")
        run.keep_on_desk(todos=todos)
        return f"Updated todo list: {msgspec.json.encode(todos).decode()}"

    return write_todos


def _read_todo(entry: Any) -> dict[str, Any]:
    content = entry.get("content") if isinstance(entry, dict) else None
    status = entry.get("status") if isinstance(entry, dict) else None
    if not isinstance(content, str) or status not in _STATUSES:
        problem = f"every entry has a content and a status of {', '.join(_STATUSES)}"
        raise ToolError(f"invalid arguments for tool 'write_todos': todos: {problem}")
    return {"content": content, "status": status}


async def _open_files(run: AgentRun, deep: DeepParts, workspace_id: int | None) -> Sequence[Tool]:
    call, node = run.call, run.call.node
    default = "state" if workspace_id is None else "filesystem"
    match to_text(call.extra.get("filesystem_backend")) or default:
        case "filesystem":
            root_dir = to_text(call.extra.get("filesystem_root_dir"))
            place = await deep.find_place(call.identity.workflow_id, workspace_id, root_dir)
            files: Files = DiskFiles(place.root, place.below)
            return (*file_tools(files, node, deep.search), _execute(run, deep, place))
        case "store":
            user_id = call.state["user_context"].get("user_profile_id")
            user_key = "anon" if user_id is None else str(user_id)
            files = deep.open_store(call.identity.workflow_id, user_key)
        case _:
            files = StateFiles(
                lambda: run.desk.files, lambda changed: run.keep_on_desk(files=changed)
            )
    return file_tools(files, node, deep.search)


def _execute(run: AgentRun, deep: DeepParts, place: Place) -> Tool:
    async def find_workspace(_context: ToolContext) -> int | None:
        return place.workspace_id

    node = node_of(run.call.node, _EXECUTE.name)
    return command_tool(_EXECUTE, node, deep.sandbox, find_workspace)

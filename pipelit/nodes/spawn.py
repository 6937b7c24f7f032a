"""`spawn_and_await`: an agent runs workflows and reads their results.

Contract: node-types.md §8.7, engine.md §15.
"""

import json
import math
from typing import Any

from pipelit.engine.definition import NodeDef
from pipelit.nodes.base import NodeServices, Tool, ToolContext, ToolError
from pipelit.nodes.children import ChildBatch, ChildCall, ChildEnd, child_timeout
from pipelit.nodes.tool_schema import tool_spec

MAX_TASKS = 20

_SPAWN = tool_spec(
    "spawn_and_await",
    "Run one workflow, or several in parallel, and wait for the results.",
    {
        "workflow_slug": {
            "type": "string",
            "default": "",
            "description": "Workflow to run; 'self' is this one",
        },
        "input_text": {
            "type": "string",
            "default": "",
            "description": "Text the workflow starts with",
        },
        "task_id": {
            "type": ["string", "null"],
            "default": None,
            "description": "Task that the run works on",
        },
        "input_data": {
            "type": ["object", "null"],
            "default": None,
            "description": "Data the workflow starts with",
        },
        "tasks": {
            "type": ["array", "null"],
            "default": None,
            "description": "Objects with workflow_slug and, optionally, input_text, task_id, "
            f"input_data; at most {MAX_TASKS}. Instead of workflow_slug",
        },
    },
)
_KINDS = (
    ("workflow_slug", str, "a string"),
    ("input_text", str, "a string"),
    ("task_id", str, "a string"),
    ("input_data", dict, "an object"),
)


def spawn_tools(node: NodeDef, config: dict[str, Any], _services: NodeServices) -> tuple[Tool, ...]:
    """Offer `spawn_and_await`."""
    timeout = child_timeout(config.get("extra_config") or {})

    async def run(arguments: dict[str, Any], context: ToolContext) -> str:
        calls, is_list = read_calls(arguments)
        if context.run_children is None:
            raise TypeError("children run only inside an execution")
        batch = ChildBatch(key=context.idempotency_key, calls=calls, timeout=timeout, spawned=True)
        ends = await context.run_children(batch)
        return _show_list(ends) if is_list else _show_one(ends[0])

    return (Tool(spec=_SPAWN, node=node, run=run, timeout=math.inf),)


def read_calls(arguments: dict[str, Any]) -> tuple[tuple[ChildCall, ...], bool]:
    """Return the children that are asked for, and whether as a list.

    Raises:
        ToolError: none or both forms, or an item that is no task.
    """
    tasks, slug = arguments.get("tasks"), arguments.get("workflow_slug") or ""
    if (tasks is None) == (not slug):
        raise ToolError("give either workflow_slug or tasks")
    if tasks is None:
        return (_call(arguments),), False
    if not tasks:
        raise ToolError("tasks list cannot be empty")
    if len(tasks) > MAX_TASKS:
        raise ToolError(f"tasks list cannot have more than {MAX_TASKS} items")
    return tuple(_call(_checked(index, task)) for index, task in enumerate(tasks)), True


def _checked(index: int, task: Any) -> dict[str, Any]:
    if not isinstance(task, dict):
        raise ToolError(f"Task {index} must be a dict, got {type(task).__name__}")
    if not task.get("workflow_slug"):
        raise ToolError(f"Task {index} missing required field 'workflow_slug'")
    for key, kind, name in _KINDS:
        if task.get(key) is not None and not isinstance(task[key], kind):
            raise ToolError(f"Task {index}: '{key}' must be {name}")
    return task


def _call(task: dict[str, Any]) -> ChildCall:
    payload = {"text": task.get("input_text") or "", "payload": task.get("input_data") or {}}
    return ChildCall(
        target=task["workflow_slug"], payload=payload, task_id=task.get("task_id") or None
    )


def _show_one(end: ChildEnd) -> str:
    if end.error is not None:
        raise ToolError(f"Spawn failed: {end.error}")
    return end.final_output if isinstance(end.final_output, str) else _dump(end.final_output)


def _show_list(ends: tuple[ChildEnd, ...]) -> str:
    return _dump([end.final_output if end.error is None else {"_error": end.error} for end in ends])


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

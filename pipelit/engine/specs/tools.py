"""Nodes an agent calls: utilities that may also be steps, platform tools, memory.

Contract: node-types.md §2, §3, §7, §8, §9.
"""

from typing import Any

from pipelit.engine.specs.notation import (
    choice,
    flag,
    integer,
    keys,
    mapping,
    need,
    number,
    port,
    text,
)
from pipelit.engine.specs.types import Category, Port, Role, TypeSpec

GREEN = "#10b981"
TEAL = "#14b8a6"
AMBER = "#f59e0b"

_RESULT = (port("result", "string"),)


def _tool(
    component_type: str,
    label: str,
    icon: str,
    description: str,
    *,
    color: str = TEAL,
    category: Category = "Tools",
    role: Role = "tool",
    inputs: tuple[Port, ...] = (),
    outputs: tuple[Port, ...] = _RESULT,
    primary_port: str | None = None,
    config_schema: dict[str, Any] | None = None,
    required_as_step: tuple[str, ...] = (),
) -> TypeSpec:
    return TypeSpec(
        component_type=component_type,
        label=label,
        category=category,
        icon=icon,
        color=color,
        role=role,
        description=description,
        inputs=inputs,
        outputs=outputs,
        primary_port=primary_port,
        config_schema=config_schema or {},
        required_as_step=required_as_step,
    )


UTILITIES = (
    _tool(
        "run_command",
        "Run Command",
        "terminal",
        "Runs a shell command in the sandbox",
        color=GREEN,
        role="dual",
        inputs=(port("command", "string"),),
        outputs=(*_RESULT, port("exit_code", "number")),
        primary_port="result",
        config_schema=keys(
            timeout=integer(300, 1, 3600),
            workspace_id=integer(nullable=True),
            command=text(),
            fail_on_error=flag(False),
        ),
        required_as_step=("command",),
    ),
    _tool(
        "http_request",
        "HTTP Request",
        "globe",
        "Calls an HTTP endpoint",
        color=GREEN,
        role="dual",
        inputs=(need("url", "string"),),
        outputs=(
            *_RESULT,
            port("status_code", "number"),
            port("body", "string"),
            port("json", "any"),
            port("headers", "object"),
            port("ok", "boolean"),
        ),
        primary_port="body",
        config_schema=keys(
            method=choice(
                "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", default="GET"
            ),
            headers=mapping(),
            timeout=number(30, 1, 300),
            url=text(),
            body={"type": ["string", "object"]},
            follow_redirects=flag(False),
            max_response_bytes=integer(262_144, 1, 1_048_576),
        ),
        required_as_step=("url",),
    ),
    _tool(
        "web_search",
        "Web Search",
        "magnifying-glass",
        "Searches the web through SearXNG",
        color=GREEN,
        role="dual",
        inputs=(need("query", "string"),),
        outputs=(*_RESULT, port("results", "array")),
        primary_port="results",
        config_schema=keys(searxng_url=text(), query=text()),
        required_as_step=("query",),
    ),
    _tool(
        "calculator",
        "Calculator",
        "calculator",
        "Evaluates arithmetic exactly",
        color=GREEN,
        role="dual",
        inputs=(port("expression", "string"),),
        primary_port="result",
        config_schema=keys(expression=text()),
        required_as_step=("expression",),
    ),
    _tool(
        "datetime",
        "Date & Time",
        "clock",
        "Tells the current date and time",
        color=GREEN,
        role="dual",
        primary_port="result",
        config_schema=keys(timezone=text("UTC")),
    ),
    _tool(
        "code_execute",
        "Code Execute",
        "laptop-code",
        "Runs Python or Bash written by the agent in the sandbox",
        color=GREEN,
        category="Processing",
        role="dual",
        primary_port="result",
        config_schema=keys(
            language=choice("python", "bash", default="python"),
            timeout_seconds=integer(30, 1, 300),
            sandbox=flag(True),
            code=text(),
        ),
        required_as_step=("code",),
    ),
)

CHECKS = (
    _tool(
        "validate_gherkin",
        "Validate Gherkin",
        "square-check",
        "Checks a Gherkin feature for syntax and style",
        color=GREEN,
        inputs=(port("gherkin_spec", "string"),),
    ),
    _tool(
        "validate_topology",
        "Validate Topology",
        "file-circle-check",
        "Checks workflow YAML without creating anything",
        color=GREEN,
        inputs=(port("topology_yaml", "string"),),
    ),
)

PLATFORM = (
    _tool(
        "create_agent_user",
        "Create Agent User",
        "user-plus",
        "Gives the agent its own API account",
        outputs=(port("credentials", "string"),),
        config_schema=keys(api_base_url=text()),
    ),
    _tool(
        "platform_api",
        "Platform API",
        "plug",
        "Calls this platform's REST API",
        outputs=(port("response", "string"),),
    ),
    _tool(
        "whoami",
        "Who Am I",
        "fingerprint",
        "Tells the agent which node it is and how to change itself",
        outputs=(port("identity", "string"),),
    ),
    _tool(
        "get_totp_code",
        "Get TOTP Code",
        "key",
        "Returns the agent account's current one-time code",
        outputs=(port("totp_code", "string"),),
    ),
    _tool(
        "epic_tools",
        "Epic Tools",
        "clipboard-list",
        "Creates, reads, changes and searches epics",
    ),
    _tool(
        "task_tools",
        "Task Tools",
        "list-check",
        "Creates, lists, changes and cancels tasks",
    ),
    _tool(
        "spawn_and_await",
        "Spawn & Await",
        "rocket",
        "Runs other workflows and waits for their results",
        config_schema=keys(timeout_seconds=integer(None, 1, nullable=True)),
    ),
    _tool(
        "workflow_create",
        "Workflow Create",
        "pen-ruler",
        "Builds a workflow from YAML",
    ),
    _tool(
        "workflow_discover",
        "Workflow Discover",
        "compass",
        "Finds existing workflows that fit a need",
        color=GREEN,
    ),
    _tool(
        "scheduler_tools",
        "Scheduler Tools",
        "calendar-days",
        "Manages recurring jobs",
    ),
    _tool(
        "system_health",
        "System Health",
        "heart-pulse",
        "Reports the health of the platform",
    ),
)

MEMORY_TOOLS = (
    _tool(
        "memory_read",
        "Memory Read",
        "database",
        "Lets the agent look things up in shared memory",
        color=AMBER,
        category="Memory",
        config_schema=keys(
            memory_type=choice("facts", "episodes", "procedures", "all", default="facts"),
            limit=integer(10, 1, 100),
            min_confidence=number(0.5, 0, 1),
        ),
    ),
    _tool(
        "memory_write",
        "Memory Write",
        "floppy-disk",
        "Lets the agent store facts in shared memory",
        color=AMBER,
        category="Memory",
        config_schema=keys(
            fact_type=choice(
                "user_preference",
                "world_knowledge",
                "self_knowledge",
                "correction",
                "relationship",
                default="world_knowledge",
            ),
            overwrite=flag(True),
        ),
    ),
)

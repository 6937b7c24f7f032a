"""The catalogue of component types: the only list, and what may be asked about a type by name.

A type that is not in the catalogue may still stand in stored data: it is shown, but cannot run.

Contract: nodes.md "Component types", node-types.md §1–3.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pipelit.engine.specs.ai import AGENTS, ATTACHED, CLASSIFIERS
from pipelit.engine.specs.flow import LOGIC, OTHERS
from pipelit.engine.specs.tools import CHECKS, MEMORY_TOOLS, PLATFORM, UTILITIES
from pipelit.engine.specs.triggers import TRIGGERS
from pipelit.engine.specs.types import TypeSpec

COMPONENT_TYPES: tuple[str, ...] = (
    *("agent", "categorizer", "router", "extractor", "deep_agent"),
    *("ai_model",),
    *("switch",),
    *("run_command", "http_request", "web_search", "calculator", "datetime", "create_agent_user"),
    *("platform_api", "whoami", "epic_tools", "task_tools", "spawn_and_await", "workflow_create"),
    *("workflow_discover", "scheduler_tools", "system_health", "get_totp_code", "skill"),
    *("validate_gherkin", "validate_topology"),
    *("aggregator", "human_confirmation", "workflow", "code", "code_execute", "loop", "wait"),
    *("merge", "filter", "error_handler", "output_parser", "reply_chat"),
    *("memory_read", "memory_write", "identify_user"),
    *("trigger_telegram", "trigger_schedule", "trigger_manual", "trigger_workflow"),
    *("trigger_error", "trigger_chat", "trigger_webhook"),
)
"""Every type a node may have, in the order error messages list them."""

SPECS: Mapping[str, TypeSpec] = MappingProxyType(
    {
        spec.component_type: spec
        for family in (
            TRIGGERS,
            AGENTS,
            CLASSIFIERS,
            ATTACHED,
            UTILITIES,
            CHECKS,
            PLATFORM,
            MEMORY_TOOLS,
            LOGIC,
            OTHERS,
        )
        for spec in family
    }
)


def spec_of(component_type: str) -> TypeSpec | None:
    """Return the description of *component_type*, or None if it is unknown."""
    return SPECS.get(component_type)


def is_trigger(component_type: str) -> bool:
    """Whether nodes of this type start executions."""
    return component_type.startswith("trigger_")


def is_attach_only(component_type: str) -> bool:
    """Whether nodes of this type only ever serve another node and are never walked."""
    spec = spec_of(component_type)
    return spec is not None and spec.role in ("tool", "config")


def is_tool_capable(component_type: str) -> bool:
    """Whether nodes of this type may be offered to an agent as a tool."""
    spec = spec_of(component_type)
    return spec is not None and spec.role in ("tool", "dual")


def is_dual(component_type: str) -> bool:
    """Whether nodes of this type are steps exactly when a flow edge reaches them."""
    spec = spec_of(component_type)
    return spec is not None and spec.role == "dual"


def primary_port(component_type: str) -> str | None:
    """Return the port read when another node names none, or None if there is no such port."""
    spec = spec_of(component_type)
    return spec.primary_port if spec else None


def display_name(component_type: str) -> str:
    """Return the name people see; an unknown type is its own name."""
    spec = spec_of(component_type)
    return spec.label if spec else component_type

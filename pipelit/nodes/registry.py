"""The only list of what each component type runs and which tools it offers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from pipelit.net.http import HttpClient
from pipelit.nodes.agent_account import (
    AgentAccounts,
    create_agent_user_tools,
    get_totp_code_tools,
)
from pipelit.nodes.aggregator import aggregator
from pipelit.nodes.base import Component, ToolFactory, config_error
from pipelit.nodes.code_execute import code_execute_tools
from pipelit.nodes.command import run_command_tools
from pipelit.nodes.confirmation import human_confirmation
from pipelit.nodes.epic_tools import Epics, epic_tools
from pipelit.nodes.error_handler import error_handler
from pipelit.nodes.gherkin_check import validate_gherkin_tools
from pipelit.nodes.http import http_request, http_request_tools
from pipelit.nodes.logic import filter_items, merge, router, switch
from pipelit.nodes.loop import loop
from pipelit.nodes.memory import Memory, memory_read_tools, memory_write_tools
from pipelit.nodes.platform_api import platform_api_tools
from pipelit.nodes.reply import reply_chat
from pipelit.nodes.rules import RuleJudge
from pipelit.nodes.sandbox_config import SandboxParts
from pipelit.nodes.scheduler_tools import Schedules, scheduler_tools
from pipelit.nodes.small_tools import (
    calculator,
    calculator_tools,
    current_datetime,
    datetime_tools,
)
from pipelit.nodes.spawn import spawn_tools
from pipelit.nodes.subworkflow import subworkflow
from pipelit.nodes.system_health import ReportHealth, system_health_tools
from pipelit.nodes.task_tools import Tasks, task_tools
from pipelit.nodes.topology import CheckTopology, validate_topology_tools
from pipelit.nodes.wait import wait
from pipelit.nodes.web_search import FindServer, web_search_tools
from pipelit.nodes.whoami import FindParent, whoami_tools
from pipelit.nodes.workflow_tools import (
    WorkflowBuilder,
    WorkflowFinder,
    workflow_create_tools,
    workflow_discover_tools,
)


def build_components(judge: RuleJudge, *, max_iterations: int = 1000) -> Mapping[str, Component]:
    """Return {component type: what a step of it runs}. `max_iterations`: of loops, by default."""
    return MappingProxyType(
        {
            "aggregator": aggregator,
            "calculator": calculator,
            "datetime": current_datetime,
            "error_handler": error_handler,
            "filter": partial(filter_items, judge=judge),
            "http_request": http_request,
            "human_confirmation": human_confirmation,
            "loop": partial(loop, max_iterations=max_iterations),
            "merge": merge,
            "reply_chat": reply_chat,
            "router": router,
            "switch": partial(switch, judge=judge),
            "wait": wait,
            "workflow": subworkflow,
        }
    )


TOOLS: Mapping[str, ToolFactory] = MappingProxyType(
    {
        "calculator": calculator_tools,
        "datetime": datetime_tools,
        "http_request": http_request_tools,
        "spawn_and_await": spawn_tools,
    }
)
"""{component type: makes the tools an attached node of it offers}, where nothing is needed."""


@dataclass(frozen=True, kw_only=True)
class ToolPorts:
    """What tools reach of the platform."""

    memory: Memory
    find_search_server: FindServer
    find_parent: FindParent
    check_topology: CheckTopology
    report_health: ReportHealth
    processes: SandboxParts
    accounts: AgentAccounts
    epics: Epics
    tasks: Tasks
    schedules: Schedules
    builder: WorkflowBuilder
    finder: WorkflowFinder
    platform: HttpClient
    """Reaches this server, whatever its address."""
    base_url: str
    """Where this server is reached."""


def build_tools(ports: ToolPorts) -> Mapping[str, ToolFactory]:
    """Return {component type: makes the tools an attached node of it offers}."""
    return MappingProxyType(
        {
            **TOOLS,
            "code_execute": partial(code_execute_tools, parts=ports.processes),
            "create_agent_user": partial(
                create_agent_user_tools, accounts=ports.accounts, base_url=ports.base_url
            ),
            "epic_tools": partial(epic_tools, epics=ports.epics),
            "get_totp_code": partial(get_totp_code_tools, accounts=ports.accounts),
            "memory_read": partial(memory_read_tools, memory=ports.memory),
            "memory_write": partial(memory_write_tools, memory=ports.memory),
            "platform_api": partial(
                platform_api_tools, client=ports.platform, base_url=ports.base_url
            ),
            "run_command": partial(run_command_tools, parts=ports.processes),
            "scheduler_tools": partial(scheduler_tools, schedules=ports.schedules),
            "system_health": partial(system_health_tools, report=ports.report_health),
            "task_tools": partial(task_tools, tasks=ports.tasks),
            "validate_gherkin": partial(validate_gherkin_tools, parts=ports.processes),
            "validate_topology": partial(validate_topology_tools, check=ports.check_topology),
            "web_search": partial(web_search_tools, find_server=ports.find_search_server),
            "whoami": partial(whoami_tools, find_parent=ports.find_parent),
            "workflow_create": partial(workflow_create_tools, builder=ports.builder),
            "workflow_discover": partial(workflow_discover_tools, finder=ports.finder),
        }
    )


def find_component(components: Mapping[str, Component], component_type: str) -> Component:
    """Return the component of a type.

    Raises:
        NodeError: `ConfigError`; the type is unknown or not built yet.
    """
    try:
        return components[component_type]
    except KeyError:
        raise config_error(f"Unknown component type: '{component_type}'") from None

"""What agents' tools reach of the platform: always as the owner of the agent's workflow."""

from pipelit.actors import paths
from pipelit.actors.hub import Publisher
from pipelit.actors.runtime import System
from pipelit.actors.turns import Turns
from pipelit.assembly.base import Base
from pipelit.assembly.starts import build_starter
from pipelit.nodes.registry import ToolPorts
from pipelit.nodes.sandbox_config import SandboxParts
from pipelit.nodes.web_search import FindServer
from pipelit.services.agent_accounts import StoredAgentAccounts
from pipelit.services.agent_lookup import AgentLookup
from pipelit.services.agent_memory import StoredMemory
from pipelit.services.executions import ExecutionsService
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedules import SchedulesService
from pipelit.services.system_health import SystemHealth
from pipelit.services.tasks import TasksService
from pipelit.services.tool_epics import OwnersEpics, OwnersTasks
from pipelit.services.tool_schedules import OwnersSchedules
from pipelit.services.workflow_builder import OwnersWorkflows
from pipelit.services.workflow_finder import WorkflowCatalogue


def build_tool_ports(
    base: Base,
    system: System,
    *,
    memory: StoredMemory,
    search: FindServer,
    processes: SandboxParts,
) -> ToolPorts:
    """Build the ports; *system* is the tree the tools will run in, which need not be up yet."""
    store, clock, ids = base.opened.store, base.world.clock, base.world.ids
    lookup = AgentLookup(store, base.model_lists)
    turns = Turns(store, Publisher(system.ref(paths.HUB)).publish, base.subjects)
    executions = ExecutionsService(
        store, build_starter(base, system), manager=system.ref(paths.MANAGER)
    )
    jobs = ScheduleActors(system.family(paths.SCHEDULES).ref)
    return ToolPorts(
        memory=memory,
        find_search_server=search,
        find_parent=lookup.find_parent,
        check_topology=lookup.check_topology,
        report_health=SystemHealth(store, clock).report,
        processes=processes,
        accounts=StoredAgentAccounts(store, clock, ids, base.opened.secrets),
        epics=OwnersEpics(store, turns, clock, ids, executions),
        tasks=OwnersTasks(store, TasksService(store, turns, clock, ids), executions),
        schedules=OwnersSchedules(
            store, SchedulesService(store, clock, ids, owner=base.owner, actors=jobs)
        ),
        builder=OwnersWorkflows(store, clock, base.model_lists),
        finder=WorkflowCatalogue(store),
        platform=base.platform_http,
        base_url=base.settings.platform_base_url,
    )

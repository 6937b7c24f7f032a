"""What executions and scheduled jobs run with."""

from functools import partial

from pipelit.actors.budgets import Budgets
from pipelit.actors.execution_parts import ExecutionParts
from pipelit.actors.node_task import NodeRunner
from pipelit.actors.plans import Plans
from pipelit.actors.runtime import System
from pipelit.actors.schedules import ScheduleParts
from pipelit.assembly.base import Base
from pipelit.assembly.nodes import build_node_components
from pipelit.engine.limits import SizeLimits
from pipelit.llm.catalogue import list_models, test_provider
from pipelit.nodes.base import NodeServices
from pipelit.nodes.registry import find_component
from pipelit.nodes.templates import Templates
from pipelit.services.credentials import CredentialsService
from pipelit.services.gateway import GatewaySync


def build_execution_parts(base: Base, system: System) -> ExecutionParts:
    """Build what executions run with."""
    settings, store, world = base.settings, base.opened.store, base.world
    services = NodeServices(clock=world.clock, ids=world.ids, http=base.http)
    components = build_node_components(base, system, build_credentials(base))
    return ExecutionParts(
        store=store,
        owner=base.owner,
        clock=world.clock,
        ids=world.ids,
        plans=Plans(store),
        runner=NodeRunner(
            store=store,
            budgets=Budgets(store, base.owner, world.clock, world.ids),
            services=services,
            expressions=Templates(base.pool),
            component_of=partial(find_component, components),
        ),
        max_parallel=settings.max_parallel_nodes,
        max_messages=settings.max_conversation_messages,
        size_limits=SizeLimits(
            node_output=settings.max_node_output_bytes, state=settings.max_state_bytes
        ),
        answer_seconds=settings.confirmation_timeout_seconds,
        default_limit=settings.max_execution_seconds,
        on_begun=base.metrics.execution_began,
    )


def build_schedule_parts(base: Base) -> ScheduleParts:
    """Build what scheduled jobs run with."""
    return ScheduleParts(
        store=base.opened.store,
        owner=base.owner,
        clock=base.world.clock,
        ids=base.world.ids,
        default_limit=lambda: base.settings.max_execution_seconds,
        observe=base.metrics.schedule_fired,
    )


def build_credentials(base: Base) -> CredentialsService:
    """Build the credentials service, which also opens credentials for the engine."""
    return CredentialsService(
        base.opened.store,
        base.world.clock,
        base.opened.secrets,
        test_provider=lambda spec: test_provider(spec, base.provider_http),
        list_models=lambda spec: list_models(spec, base.provider_http),
        gateway=GatewaySync(base.gateway),
        model_lists=base.model_lists,
    )

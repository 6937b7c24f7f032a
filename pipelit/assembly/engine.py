"""What executions run with: components, models, tools, limits."""

from functools import partial
from typing import Literal

from pipelit.actors.execution import ExecutionParts
from pipelit.actors.node_task import NodeRunner
from pipelit.actors.plans import Plans
from pipelit.actors.schedules import ScheduleParts
from pipelit.assembly.base import Base
from pipelit.engine.limits import SizeLimits
from pipelit.llm.catalogue import list_models, test_provider
from pipelit.llm.locality import is_local
from pipelit.llm.types import ProviderSpec
from pipelit.nodes.agent import AgentParts, agent_component
from pipelit.nodes.agent_model import ModelParts
from pipelit.nodes.base import Component, NodeServices
from pipelit.nodes.categorizer import CategorizerParts, categorizer_component
from pipelit.nodes.extractor import ExtractorParts, extractor_component
from pipelit.nodes.identify_user import identify_user_component
from pipelit.nodes.parsing import OutputParsing
from pipelit.nodes.registry import build_components, build_tools, find_component
from pipelit.nodes.rules import RuleJudge
from pipelit.nodes.skills import SkillLibrary
from pipelit.nodes.templates import Templates
from pipelit.nodes.web_search import web_search
from pipelit.services.agent_memory import StoredMemory
from pipelit.services.credentials import CredentialsService, NoProvider
from pipelit.services.gateway import GatewaySync


def build_execution_parts(base: Base) -> ExecutionParts:
    """Build what executions run with."""
    settings, store, world = base.settings, base.opened.store, base.world
    services = NodeServices(clock=world.clock, ids=world.ids, http=base.http)
    components = build_node_components(base)
    return ExecutionParts(
        store=store,
        owner=base.owner,
        clock=world.clock,
        ids=world.ids,
        plans=Plans(store),
        runner=NodeRunner(
            store=store,
            services=services,
            expressions=Templates(base.pool),
            component_of=partial(find_component, components),
        ),
        max_parallel=settings.max_parallel_nodes,
        max_messages=settings.max_conversation_messages,
        size_limits=SizeLimits(
            node_output=settings.max_node_output_bytes, state=settings.max_state_bytes
        ),
    )


def build_schedule_parts(base: Base) -> ScheduleParts:
    """Build what scheduled jobs run with."""
    return ScheduleParts(
        store=base.opened.store,
        owner=base.owner,
        clock=base.world.clock,
        ids=base.world.ids,
        default_limit=lambda: base.settings.max_execution_seconds,
    )


def build_node_components(base: Base) -> dict[str, Component]:
    """Build what each component type runs."""
    credentials_service = build_credentials(base)

    async def find_credential(
        credential_id: int,
    ) -> ProviderSpec | Literal["missing", "not_llm"]:
        found = await credentials_service.provider_spec(credential_id)
        if isinstance(found, NoProvider):
            return "missing" if found is NoProvider.MISSING else "not_llm"
        return found

    models = ModelParts(
        providers=base.providers,
        find_credential=find_credential,
        prices=base.prices,
        is_local=lambda spec: is_local(spec.base_url, base.resolver),
    )

    async def find_search_server() -> str:
        config = await credentials_service.find_preferred_tool("searxng") or {}
        return str(config.get("url") or base.settings.searxng_url)

    memory = StoredMemory(base.opened.store, base.world.clock, base.world.ids)
    parsing = OutputParsing(base.pool)
    tools = build_tools(memory=memory, find_search_server=find_search_server)
    skills = SkillLibrary((base.settings.data_dir / "skills", *base.settings.skill_dirs))
    return {
        **build_components(RuleJudge(base.pool, base.world.clock)),
        "agent": agent_component(AgentParts(models=models, tools=tools, skills=skills)),
        "categorizer": categorizer_component(
            CategorizerParts(models=models, parsing=parsing, memory=memory)
        ),
        "extractor": extractor_component(ExtractorParts(models=models, parsing=parsing)),
        "identify_user": identify_user_component(memory),
        "web_search": partial(web_search, find_server=find_search_server),
    }


def build_credentials(base: Base) -> CredentialsService:
    """Build the credentials service, which also opens credentials for the engine."""
    return CredentialsService(
        base.opened.store,
        base.world.clock,
        base.opened.secrets,
        test_provider=lambda spec: test_provider(spec, base.provider_http),
        list_models=lambda spec: list_models(spec, base.provider_http),
        gateway=GatewaySync(base.gateway),
    )

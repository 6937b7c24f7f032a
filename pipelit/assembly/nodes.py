"""What nodes run with: components, models, tools, memory, skills."""

import os
from functools import partial
from typing import Literal

import structlog

from pipelit.actors.runtime import System
from pipelit.assembly.base import Base
from pipelit.assembly.processes import (
    build_deep_parts,
    build_process_components,
    build_processes,
    skill_roots,
)
from pipelit.assembly.tools import build_tool_ports
from pipelit.assembly.traces import trace_call
from pipelit.engine.outcome import Usage
from pipelit.llm.locality import is_local
from pipelit.llm.types import ProviderSpec
from pipelit.nodes.agent import AgentParts, agent_component
from pipelit.nodes.agent_model import ModelParts
from pipelit.nodes.base import Component
from pipelit.nodes.categorizer import CategorizerParts, categorizer_component
from pipelit.nodes.deep_agent import deep_agent_component
from pipelit.nodes.extractor import ExtractorParts, extractor_component
from pipelit.nodes.identify_user import identify_user_component
from pipelit.nodes.parsing import OutputParsing
from pipelit.nodes.registry import build_components, build_tools
from pipelit.nodes.rules import RuleJudge
from pipelit.nodes.skills import SkillLibrary
from pipelit.nodes.web_search import FindServer, web_search
from pipelit.services.agent_memory import StoredMemory
from pipelit.services.credentials import CredentialsService, NoProvider
from pipelit.services.environment import look
from pipelit.services.sandbox_environment import SandboxEnvironment

log = structlog.get_logger(__name__)


def build_node_components(
    base: Base, system: System, credentials: CredentialsService
) -> dict[str, Component]:
    """Build what each component type runs."""
    memory = StoredMemory(base.opened.store, base.world.clock, base.world.ids)
    models = build_models(base, credentials)
    parsing = OutputParsing(base.pool)
    processes = build_processes(base, credentials)
    search = find_search_server(base, credentials)
    ports = build_tool_ports(base, system, memory=memory, search=search, processes=processes)
    skills = SkillLibrary(skill_roots(base.settings))
    agents = AgentParts(
        models=models,
        tools=build_tools(ports),
        skills=skills,
        environment=SandboxEnvironment(base.opened.store, partial(look, os.environ)).describe,
    )
    return {
        **build_components(
            RuleJudge(base.pool, base.world.clock),
            max_iterations=base.settings.loop_max_iterations,
        ),
        **build_process_components(processes),
        "agent": agent_component(agents),
        "deep_agent": deep_agent_component(agents, build_deep_parts(base, credentials, processes)),
        "categorizer": categorizer_component(
            CategorizerParts(models=models, parsing=parsing, memory=memory)
        ),
        "extractor": extractor_component(ExtractorParts(models=models, parsing=parsing)),
        "identify_user": identify_user_component(memory),
        "web_search": partial(web_search, find_server=ports.find_search_server),
    }


def build_models(base: Base, credentials: CredentialsService) -> ModelParts:
    """Build what AI nodes need to reach models."""

    async def find_credential(
        credential_id: int,
    ) -> ProviderSpec | Literal["missing", "not_llm"]:
        found = await credentials.provider_spec(credential_id)
        if isinstance(found, NoProvider):
            return "missing" if found is NoProvider.MISSING else "not_llm"
        return found

    def count(spec: ProviderSpec, model: str, outcome: str, used: Usage, seconds: float) -> None:
        base.metrics.model_called(
            spec.provider_type,
            model,
            outcome,
            tokens=(used.input_tokens, used.output_tokens),
            cost_micros=used.cost_micros,
        )
        log.info(
            "model call",
            provider=spec.provider_type,
            model=model,
            outcome=outcome,
            ms=round(seconds * 1000),
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
        )
        if base.traces is not None:
            trace_call(base.traces, base.world.clock, spec, model, outcome, used, seconds)

    return ModelParts(
        providers=base.providers,
        find_credential=find_credential,
        prices=base.prices,
        is_local=lambda spec: is_local(spec.base_url, base.resolver),
        on_call=count,
    )


def find_search_server(base: Base, credentials: CredentialsService) -> FindServer:
    """Return how web searches find their server: a preferred credential, else the operator's."""

    async def find() -> str:
        config = await credentials.find_preferred_tool("searxng") or {}
        return str(config.get("url") or base.settings.searxng_url)

    return find

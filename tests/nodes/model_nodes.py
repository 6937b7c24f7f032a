"""Calls of nodes that ask a model once or twice: a scripted provider, a parser, a memory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import trio

from pipelit.engine.definition import NodeDef
from pipelit.engine.messages import ChatMessage
from pipelit.llm.prices import Prices
from pipelit.llm.types import ProviderSpec
from pipelit.nodes.agent_model import ModelParts
from pipelit.nodes.base import Attached, NodeCall, WithConfig
from pipelit.nodes.memory import Fact, Procedure
from tests.nodes.agents import SPEC, Port, Script, message
from tests.nodes.calls import call, node


def model_parts(script: Script) -> ModelParts:
    async def find_credential(credential_id: int) -> Any:
        await trio.lowlevel.checkpoint()
        return SPEC

    async def is_local(spec: ProviderSpec) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    return ModelParts(
        providers=script, find_credential=find_credential, prices=Prices(), is_local=is_local
    )


def model_call(
    *said: ChatMessage,
    port: Port | None = None,
    model: bool = True,
    parser: dict[str, Any] | None = None,
    tools: Sequence[WithConfig] = (),
    outputs: dict[str, dict[str, Any]] | None = None,
    system_prompt: str = "",
    **extra: Any,
) -> NodeCall:
    """Build a call of a node with a model; without *said* the user says "hi"."""
    said = said or (message("user", "hi"),)
    config = {"llm_credential_id": 1, "model_name": "gpt-4o"}
    return replace(
        call(
            system_prompt=system_prompt,
            outputs=outputs,
            state={"messages": [m.to_json() for m in said]},
            **extra,
        ),
        attached=Attached(
            model=NodeDef(id=2, node_id="m", component_type="ai_model", config=config)
            if model
            else None,
            tools=tuple(tools),
            output_parser=None
            if parser is None
            else (node("output_parser"), {"extra_config": parser}),
        ),
        run=port or Port(),
    )


class FakeMemory:
    """A memory in a dict that finds what holds the query, in small letters."""

    def __init__(self, *facts: Fact) -> None:
        self.facts = {fact.key: fact for fact in facts}
        self.procedures: list[Procedure] = []
        self.episodes: list[str] = []
        self.broken: Exception | None = None

    async def _come(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken is not None:
            raise self.broken

    async def find_fact(self, key: str) -> Fact | None:
        await self._come()
        return self.facts.get(key)

    async def newest_facts(self, *, limit: int, min_confidence: float) -> Sequence[Fact]:
        return await self.search_facts("", limit=limit, min_confidence=min_confidence)

    async def search_facts(
        self, query: str, *, limit: int, min_confidence: float
    ) -> Sequence[Fact]:
        await self._come()
        found = [
            fact
            for fact in self.facts.values()
            if query.lower() in f"{fact.key} {fact.value}".lower()
            and fact.confidence >= min_confidence
        ]
        return found[:limit]

    async def search_procedures(
        self, query: str, *, workflow_id: int, limit: int
    ) -> Sequence[Procedure]:
        await self._come()
        return self.procedures[:limit]

    async def search_episodes(self, query: str, *, workflow_id: int, limit: int) -> Sequence[str]:
        await self._come()
        return self.episodes[:limit]

    async def set_fact(self, key: str, value: Any, fact_type: str, *, overwrite: bool) -> Any:
        await self._come()
        written = "created"
        if key in self.facts:
            written = "updated" if overwrite else "skipped"
        if written != "skipped":
            self.facts[key] = Fact(key=key, value=value, fact_type=fact_type)
        return written

"""An agent with a scripted provider, tools made of functions, and a port that keeps everything."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import trio

from pipelit.engine.budget import Estimate
from pipelit.engine.definition import NodeDef
from pipelit.engine.messages import ChatMessage, MessageUsage, ToolCall
from pipelit.engine.outcome import Outcome, Report, Usage
from pipelit.llm.prices import Prices
from pipelit.llm.types import (
    InvalidToolCall,
    ModelRequest,
    ModelResponse,
    ProviderSpec,
)
from pipelit.nodes.agent import AgentParts, DescribeEnvironment, agent_component
from pipelit.nodes.agent_model import ModelParts
from pipelit.nodes.base import (
    Attached,
    Component,
    NodeCall,
    NodeServices,
    RunEvent,
    Tool,
    ToolContext,
    ToolFactory,
)
from pipelit.nodes.tool_schema import tool_spec
from tests.nodes.calls import call

USED = MessageUsage(10, 5, 15)
SPEC = ProviderSpec(credential_id=1, provider_type="openai", api_key="k")

Answer: TypeAlias = ModelResponse | Exception | Callable[[], Awaitable[ModelResponse]]


def says(text: str, usage: MessageUsage | None = USED) -> ModelResponse:
    return ModelResponse(text=text, usage=usage)


def calls(*wanted: ToolCall | InvalidToolCall, text: str = "") -> ModelResponse:
    return ModelResponse(text=text, calls=wanted, usage=USED)


class Script:
    """A provider that answers what it was told to, and remembers what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[ModelRequest] = []

    def get(self, spec: ProviderSpec) -> "Script":
        return self

    async def complete(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None],
        on_alive: Callable[[], None],
    ) -> ModelResponse:
        self.requests.append(request)
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, ModelResponse):
            answer = await answer()
        on_alive()
        for piece in answer.text.split(" ") if answer.text else ():
            on_text(piece)
        return answer

    def texts(self, number: int = -1) -> list[tuple[str, str]]:
        """Return role and text of what a request said."""
        return [(m.role, m.text) for m in self.requests[number].messages]


@dataclass
class Port:
    """What a node's task offers its component."""

    progress: Any = None
    recorded: Usage = field(default_factory=Usage)
    remembered: tuple[ChatMessage, ...] = ()
    saves: list[tuple[Any, list[RunEvent]]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    deltas: list[tuple[str, int]] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)

    def alive(self) -> None:
        pass

    def note(self, report: Report) -> None:
        self.reports.append(report)

    def delta(self, text: str, index: int) -> None:
        self.deltas.append((text, index))

    @property
    def purse(self) -> "Port":
        return self

    async def reserve(self, estimate: Estimate, on_alive: Callable[[], None]) -> str | None:
        await trio.lowlevel.checkpoint()
        self.estimates.append(estimate)
        return None

    def settle(self, reservation_id: str | None, used: Usage) -> None:
        assert reservation_id is None

    async def save(self, progress: Any, events: Sequence[RunEvent] = ()) -> None:
        self.saves.append((progress, list(events)))
        await trio.lowlevel.checkpoint()

    async def history(self) -> tuple[ChatMessage, ...]:
        await trio.lowlevel.checkpoint()
        return self.remembered

    def told(self) -> list[str]:
        """Return the events of all saves as words: `chat_message Hi`, `add running`."""
        return [
            f"chat_message {event.data['text']}"
            if event.type == "chat_message"
            else f"{event.data['tool_name']} {event.data['status']}"
            for _, events in self.saves
            for event in events
        ]

    @property
    def last(self) -> Any:
        """What was saved last."""
        return self.saves[-1][0]


ToolBody: TypeAlias = Callable[[dict[str, Any], ToolContext], Awaitable[str]]
NUMBERS = {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}}


def tools_of(bodies: Mapping[str, ToolBody], timeout: float) -> Mapping[str, ToolFactory]:
    """Return a factory for each body: its node type, and its function, have the body's name."""

    def factory(name: str) -> ToolFactory:
        def make(node: NodeDef, config: Any, services: NodeServices) -> tuple[Tool, ...]:
            spec = tool_spec(name, f"Do {name}.", NUMBERS, required=("a",))
            return (Tool(spec=spec, node=node, run=bodies[name], timeout=timeout),)

        return make

    return {name: factory(name) for name in bodies}


async def run_agent(
    script: Script,
    port: Port | None = None,
    *,
    tools: Mapping[str, ToolBody] | None = None,
    attached: Sequence[str] = (),
    tool_timeout: float = 300.0,
    messages: Sequence[ChatMessage] = (),
    payload: Any = None,
    model: dict[str, Any] | None = None,
    model_extra: dict[str, Any] | None = None,
    credential: Any = SPEC,
    system_prompt: str = "",
    rendered: dict[str, Any] | None = None,
    environment: DescribeEnvironment | None = None,
    component: Callable[[AgentParts], Component] = agent_component,
    **extra: Any,
) -> Outcome:
    """Run an agent to its end.

    Args:
        tools: {name: body}; `attached` names them in edge order, repeated ones as often as they
            are attached; without it each once.
        messages: the shared conversation; without any, the user says "hi".
        rendered: what the templates of the config have become, where they differ.
        environment: describes the sandbox.
        component: which kind of agent.
    """
    bodies = tools or {}
    said = messages or (message("user", "hi"),)
    base = call(
        system_prompt=system_prompt,
        state={
            "messages": [m.to_json() for m in said],
            "trigger": {"payload": payload},
            "user_context": {"user_profile_id": 2},
        },
        **extra,
    )
    ai_model = NodeDef(
        id=2,
        node_id="m",
        component_type="ai_model",
        config={
            "llm_credential_id": 1,
            "model_name": "gpt-4o",
            "extra_config": model_extra or {},
            **(model or {}),
        },
    )
    tool_nodes = tuple(
        (NodeDef(id=10 + number, node_id=f"{name}_{number}", component_type=name), {})
        for number, name in enumerate(attached or bodies)
    )

    async def find_credential(credential_id: int) -> Any:
        await trio.lowlevel.checkpoint()
        return credential

    async def is_local(spec: ProviderSpec) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    parts = AgentParts(
        models=ModelParts(
            providers=script,
            find_credential=find_credential,
            prices=Prices(),
            is_local=is_local,
        ),
        tools=tools_of(bodies, tool_timeout),
        environment=environment,
    )
    config = {**base.config, "extra_config": {**base.extra, **(rendered or {})}}
    attempt: NodeCall = replace(
        base,
        node=replace_type(base.node),
        config=config,
        attached=Attached(model=ai_model, tools=tool_nodes),
        run=port or Port(),
    )
    return await component(parts)(attempt)


def replace_type(node: NodeDef) -> NodeDef:
    return NodeDef(id=node.id, node_id=node.node_id, component_type="agent", config=node.config)


def message(role: Any, text: str, **more: Any) -> ChatMessage:
    return ChatMessage(
        id=f"{role}-{text}", role=role, content=text, timestamp="2026-01-01T00:00:00", **more
    )

"""Builds the calls components get, with everything a test does not care about filled in."""

from datetime import UTC, datetime
from typing import Any

from pipelit.clock import Clock, Ids
from pipelit.engine.definition import NodeDef
from pipelit.net.egress import EgressPolicy
from pipelit.net.http import HttpClient
from pipelit.nodes.base import NodeCall, NodeServices, RunIdentity, ToolContext

NOW = datetime(2026, 2, 16, 14, 30, tzinfo=UTC)
IDENTITY = RunIdentity(
    execution_id="e1",
    workflow_id=1,
    workflow_slug="w",
    node_id="me",
    iteration="0",
    attempt=0,
)


class FixedClock(Clock):
    """A clock that stands still."""

    def now(self) -> datetime:
        return NOW


def services(*open_ports: int) -> NodeServices:
    """Return services whose HTTP client reaches only the given ports of 127.0.0.1."""
    policy = EgressPolicy.parse([f"127.0.0.1:{port}" for port in open_ports])
    return NodeServices(clock=FixedClock(), ids=Ids.seeded(1), http=HttpClient(policy, "workflow"))


def node(component_type: str = "x", *, system_prompt: str = "", **extra: Any) -> NodeDef:
    config = {"system_prompt": system_prompt, "extra_config": extra}
    return NodeDef(id=1, node_id="me", component_type=component_type, config=config)


def call(
    *,
    system_prompt: str = "",
    outputs: dict[str, dict[str, Any]] | None = None,
    predecessors: tuple[str, ...] = (),
    primary: dict[str, str] | None = None,
    trigger: str | None = None,
    state: dict[str, Any] | None = None,
    remaining: float = 900.0,
    using: NodeServices | None = None,
    **extra: Any,
) -> NodeCall:
    """Build one attempt; every node of *outputs* but *trigger* was walked."""
    outputs = outputs or {}
    subject = node(system_prompt=system_prompt, **extra)
    return NodeCall(
        identity=IDENTITY,
        node=subject,
        config=dict(subject.config),
        state={
            "node_outputs": outputs,
            "node_results": {name: {} for name in outputs if name != trigger},
            "trigger": outputs.get(trigger or "", {}),
            "route": "",
            "output": None,
            **(state or {}),
        },
        predecessors=predecessors,
        primary_ports=primary or dict.fromkeys(outputs, "output"),
        remaining_seconds=remaining,
        services=using or services(),
    )


def tool_context(key: str = "e1:agent:0:call_1") -> ToolContext:
    return ToolContext(idempotency_key=key, clock=FixedClock(), caller=IDENTITY)

"""Random workflows: graphs that are valid, with every way of waiting, branching and failing."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

TEXT_OF_RUN = "You run in {{ execution.id }}"
"""System prompt of every agent: its last word tells the provider which run calls."""


class DraftNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node as the API takes it."""

    node_id: str
    component_type: str
    config: dict[str, Any] = {}
    interrupt_before: bool = False
    interrupt_after: bool = False


class DraftEdge(msgspec.Struct, frozen=True, kw_only=True):
    """An edge as the API takes it."""

    source_node_id: str
    target_node_id: str
    edge_type: str = "direct"
    edge_label: str = ""
    condition_value: str = ""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow to be built over the API."""

    slug: str
    nodes: tuple[DraftNode, ...]
    edges: tuple[DraftEdge, ...]
    settings: dict[str, Any] = {}

    @property
    def handles_failures(self) -> bool:
        """A failure of the workflow starts it again, at its error trigger."""
        return any(node.component_type == "trigger_error" for node in self.nodes)


TRIGGERS = {
    "chat_in": "trigger_chat",
    "start": "trigger_manual",
    "hook": "trigger_webhook",
    "clock": "trigger_schedule",
    "called": "trigger_workflow",
}


FAILED = "oops"
"""The trigger of workflows that handle their own failures."""

ITEMS = "items"
"""The first step of every workflow: gives loops what they go over."""


class _Sketch:
    """A graph being drawn: layers of steps below the triggers, joined at random."""

    def __init__(self, draw: Random, credential_id: int, model: str, below: str | None) -> None:
        """*below*: the workflow that this one may run."""
        self._draw = draw
        self._below = below
        self._credential = {"llm_credential_id": credential_id, "model_name": model}
        self.nodes: list[DraftNode] = []
        self.edges: list[DraftEdge] = []
        self._count = 0
        self._is_inside = False  # a loop's body is being drawn

    def add(self, component_type: str, extra: dict[str, Any] | None = None, **more: Any) -> str:
        """Add a step and return its id."""
        self._count += 1
        node_id = f"{component_type}_{self._count}"
        config = {**more.pop("config", {}), "extra_config": extra or {}}
        self.nodes.append(
            DraftNode(node_id=node_id, component_type=component_type, config=config, **more)
        )
        return node_id

    def join(self, source: str, target: str, **more: str) -> None:
        """Add an edge."""
        self.edges.append(DraftEdge(source_node_id=source, target_node_id=target, **more))

    def add_step(self) -> str:
        """Add a step of a random kind."""
        draw = self._draw
        asks = {
            "interrupt_before": draw.random() < 0.05,
            "interrupt_after": draw.random() < 0.05,
        }
        match draw.choices(
            (
                "merge",
                "wait",
                "agent",
                "http",
                "code",
                "confirm",
                "template",
                "router",
                "loop",
                "workflow",
            ),
            (3, 3, 4, 3, 2, 1, 2, 1, 2, 2),
        )[0]:
            case "wait":
                return self.add("wait", {"duration": draw.choice((0, 1, 5, 45))}, **asks)
            case "agent":
                return self._add_agent(asks)
            case "http":
                url = {"url": "https://shop.example/order", "method": "POST", "body": "{}"}
                return self.add("http_request", {**url, "timeout": 20}, **asks)
            case "code":
                return self.add("code", {"code": "return 40 + 2", "timeout": 15}, **asks)
            case "confirm":
                return self.add("human_confirmation", {"prompt": "Go on with {{ trigger.text }}?"})
            case "template":
                text = "{% for n in range(3) %}{{ n }}{% endfor %} {{ trigger.text }}"
                return self.add("code", {"code": text, "language": "template"}, **asks)
            case "loop" if not self._is_inside:
                return self._add_loop()
            case "workflow" if self._below is not None and not self._is_inside:
                return self._add_workflow(self._below)
            case "router":
                return self.add("router", {"condition_expression": "{{ trigger.text }}"}, **asks)
            case _:
                return self.add("merge", {"mode": "append"}, **asks)

    def _add_loop(self) -> str:
        """Add a loop over the items, with a body of one or two steps."""
        draw = self._draw
        over = {"source_node": ITEMS, "on_error": draw.choice(("stop", "continue"))}
        loop, self._is_inside = self.add("loop", over), True
        first = last = self.add_step()
        if draw.random() < 0.5:
            last = self.add_step()
            self.join(first, last)
        self.join(loop, first, edge_label="loop_body")
        self.join(last, loop, edge_label="loop_return")
        self._is_inside = False
        return loop

    def _add_workflow(self, below: str) -> str:
        """Add a node that runs another workflow, under a text that no other node gives it."""
        text = f"w{self._draw.randrange(1, 4)} child {{{{ execution.id }}}} {self._count}"
        more = {"timeout_seconds": 20} if self._draw.random() < 0.2 else {}
        return self.add(
            "workflow", {"target_workflow": below, "input_mapping": {"text": text}, **more}
        )

    def _add_agent(self, asks: dict[str, bool]) -> str:
        draw = self._draw
        memory = {"conversation_memory": draw.random() < 0.4}
        agent = self.add("agent", memory, config={"system_prompt": TEXT_OF_RUN}, **asks)
        self.join(self.add("ai_model", config=self._credential), agent, edge_label="llm")
        for tool in draw.sample(("calculator", "http_request", "datetime"), draw.randrange(3)):
            self.join(self.add(tool), agent, edge_label="tool")
        if self._below is not None and draw.random() < 0.5:
            self.join(self.add("spawn_and_await"), agent, edge_label="tool")
        return agent

    def add_switch(self, source: str, targets: Sequence[str]) -> str:
        """Put a switch behind *source* that chooses one of *targets* by what was said."""
        rules = [
            {
                "id": f"r{number}",
                "field": "trigger.text",
                "operator": "contains",
                "value": f"w{number}",
            }
            for number in range(1, len(targets))
        ]
        switch = self.add("switch", {"rules": rules, "enable_fallback": True})
        self.join(source, switch)
        routes = [*(str(rule["id"]) for rule in rules), "__other__"]
        for route, target in zip(routes, reversed(targets), strict=True):
            self.join(switch, target, edge_type="conditional", condition_value=route)
        return switch


def draw_workflow(draw: Random, number: int, *, credential_id: int, model: str) -> Draft:
    """Draw a workflow that starts in every way there is, and may run the one before it."""
    slug = f"soak-{number}"
    sketch = _Sketch(draw, credential_id, model, f"soak-{number - 1}" if number else None)
    triggers = TRIGGERS | ({FAILED: "trigger_error"} if draw.random() < 0.5 else {})
    nodes = [DraftNode(node_id=node_id, component_type=kind) for node_id, kind in triggers.items()]
    items = {"language": "template", "code": draw.choice(("[1, 2, 3]", "[1]", "[]"))}
    nodes.append(DraftNode(node_id=ITEMS, component_type="code", config={"extra_config": items}))
    ends = _draw_body(draw, sketch, list(triggers))
    if draw.random() < 0.5:
        reply = sketch.add("reply_chat", {"message": "Done: {{ trigger.text }}"})
        for end in ends:
            sketch.join(end, reply)
    if draw.random() < 0.3:
        handler = sketch.add("error_handler")
        for node in sketch.nodes:
            may_fail = node.component_type in {"http_request", "code"}
            if may_fail and _is_reached(node.node_id, sketch.edges):
                sketch.join(node.node_id, handler)
    settings = {"max_execution_seconds": draw.choice((30, 120, 240))}
    return Draft(
        slug=slug, nodes=(*nodes, *sketch.nodes), edges=tuple(sketch.edges), settings=settings
    )


def _draw_body(draw: Random, sketch: _Sketch, triggers: list[str]) -> list[str]:
    """Draw layers of steps below *triggers*; return the last layer."""
    for trigger in triggers:
        sketch.join(trigger, ITEMS)
    first = sketch.add_step()
    sketch.join(ITEMS, first)
    layer = [first]
    for _ in range(draw.randrange(1, 4)):
        below = [sketch.add_step() for _ in range(draw.randrange(1, 4))]
        if len(below) > 1 and draw.random() < 0.4:
            sketch.add_switch(layer[0], below)
            layer, rest = below, layer[1:]
            for source in rest:
                sketch.join(source, draw.choice(below))
            continue
        for source in layer:
            for target in draw.sample(below, draw.randrange(1, len(below) + 1)):
                sketch.join(source, target)
        for target in below:
            if not _is_reached(target, sketch.edges):
                sketch.join(draw.choice(layer), target)
        layer = below
    return layer


def _is_reached(node_id: str, edges: Sequence[DraftEdge]) -> bool:
    return any(edge.target_node_id == node_id and not edge.edge_label for edge in edges)

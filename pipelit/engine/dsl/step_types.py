"""What each step type becomes, and where its keys go.

Contract: engine.md §27.3, first table.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from pipelit.engine.dsl.errors import UnreadableKey

Keys = Mapping[str, tuple[str, ...]]
"""`{key of extra_config: names it may have in a step, the first present wins}`."""

_FENCE = re.compile(r"\A\s*```[^\n`]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_OVER = re.compile(r"(?:\{\{\s*)?([A-Za-z0-9_][A-Za-z0-9_-]*)(?:\.([\w.-]+))?(?:\s*\}\})?")


CODE_KEYS = ("snippet", "code")
PROMPT_KEYS = ("prompt", "system_prompt")
_COMMON_KEYS = (
    "id", "name", "type", "label", "next", "interrupt_before", "interrupt_after", "config",
)  # fmt: skip


def _same(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


def _nothing(_: Mapping[str, Any]) -> dict[str, Any]:
    return {}


class StepType(msgspec.Struct, frozen=True, kw_only=True):
    """One word a step may have as its `type`.

    `more` computes the keys that are not copied as they are; `others` names what it, the flow or
    the attachments read.
    """

    component_type: str
    keys: Keys = {}
    prompt: bool = False
    more: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    others: tuple[str, ...] = ()

    def known_keys(self) -> frozenset[str]:
        """Return every key that a step of this type may have."""
        named = {name for names in self.keys.values() for name in names}
        prompts = PROMPT_KEYS if self.prompt else ()
        return frozenset({*_COMMON_KEYS, *prompts, *named, *self.others})


def first_of(step: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the value of the first of *names* that the step has; None if it has none."""
    return next((step[name] for name in names if step.get(name) is not None), None)


def source_of(step: Mapping[str, Any]) -> dict[str, Any]:
    """Read `over`: a node, or a field of a node, in template braces or bare.

    Raises:
        UnreadableKey: it is neither.
    """
    over = step.get("over")
    if over is None:
        return {}
    match = _OVER.fullmatch(over.strip()) if isinstance(over, str) else None
    if match is None:
        raise UnreadableKey(f"`over` must be a node id or a field of a node, not {over!r}")
    node_id, field = match.groups()
    return {"source_node": node_id} | ({"field": field} if field else {})


def _code(step: Mapping[str, Any]) -> dict[str, Any]:
    snippet = first_of(step, CODE_KEYS)
    return {"code": without_fence(snippet)} if isinstance(snippet, str) else {}


def without_fence(snippet: str) -> str:
    """Return the code inside a Markdown fence, or the text as it is."""
    fenced = _FENCE.match(snippet)
    return fenced[1] if fenced else snippet


def _transform(step: Mapping[str, Any]) -> dict[str, Any]:
    return {"language": "template", "code": step.get("template")}


def _switch(step: Mapping[str, Any]) -> dict[str, Any]:
    rules = [
        {
            "id": rule.get("route"),
            "field": rule.get("field", ""),
            "operator": rule.get("operator") or "equals",
            "value": rule.get("value", ""),
        }
        | ({"label": rule["label"]} if rule.get("label") else {})
        for rule in rules_of(step)
    ]
    return {"rules": rules} | ({"enable_fallback": True} if step.get("default") else {})


def rules_of(step: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rules of a switch.

    Raises:
        UnreadableKey: they are no list of mappings.
    """
    rules = step.get("rules") or []
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise UnreadableKey("`rules` must be a list of mappings")
    return rules


def _loop(step: Mapping[str, Any]) -> dict[str, Any]:
    limit = step.get("max_iterations")
    return source_of(step) | {"max_iterations": 100 if limit is None else limit}


_AGENT: Keys = MappingProxyType(_same("conversation_memory", "input_template", "max_iterations"))
_DEEP_AGENT: Keys = MappingProxyType(
    {
        **_AGENT,
        **_same("enable_filesystem", "filesystem_backend", "filesystem_root_dir", "enable_todos"),
        **_same("subagents", "workspace_id", "allow_network"),
    }
)

_AGENT_OTHERS = ("model", "tools", "skills", "memory")

STEP_TYPES: Mapping[str, StepType] = MappingProxyType(
    {
        "agent": StepType(component_type="agent", keys=_AGENT, prompt=True, others=_AGENT_OTHERS),
        "deep_agent": StepType(
            component_type="deep_agent", keys=_DEEP_AGENT, prompt=True, others=_AGENT_OTHERS
        ),
        "categorizer": StepType(
            component_type="categorizer",
            keys=_same("categories", "input_template"),
            prompt=True,
            others=("model", "output_parser"),
        ),
        "extractor": StepType(
            component_type="extractor",
            keys={"extraction_schema": ("schema",)},
            prompt=True,
            others=("model", "output_parser"),
        ),
        "router": StepType(
            component_type="router",
            keys=_same("condition_field", "condition_expression"),
            others=("model",),
        ),
        "code": StepType(
            component_type="code",
            keys=_same("language", "timeout"),
            more=_code,
            others=CODE_KEYS,
        ),
        "transform": StepType(component_type="code", more=_transform, others=("template",)),
        "http": StepType(
            component_type="http_request",
            keys=_same("url", "method", "headers", "body", "timeout"),
        ),
        "switch": StepType(component_type="switch", more=_switch, others=("rules", "default")),
        "loop": StepType(
            component_type="loop",
            keys=_same("on_error"),
            more=_loop,
            others=("over", "body", "max_iterations"),
        ),
        "filter": StepType(
            component_type="filter", keys=_same("rules"), more=source_of, others=("over",)
        ),
        "merge": StepType(component_type="merge", keys=_same("mode", "source_nodes")),
        "aggregator": StepType(
            component_type="aggregator", keys=_same("operation", "field", "source_node")
        ),
        "wait": StepType(
            component_type="wait",
            keys={"duration": ("duration", "delay"), "unit": ("unit", "delay_unit")},
        ),
        "workflow": StepType(
            component_type="workflow",
            keys={
                "target_workflow": ("workflow", "slug", "target_workflow"),
                "input_mapping": ("payload", "input_mapping"),
                "trigger_mode": ("trigger_mode",),
            },
        ),
        "human": StepType(
            component_type="human_confirmation",
            keys={"prompt": ("message", "prompt"), "on_reject": ("on_reject",)},
        ),
        "reply_chat": StepType(
            component_type="reply_chat", keys={"message": ("message", "template")}
        ),
        "identify_user": StepType(component_type="identify_user", keys=_same("channel")),
        "error_handler": StepType(component_type="error_handler", others=("for",)),
    }
)

TRIGGER_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **{
            word: f"trigger_{word}"
            for word in ("chat", "telegram", "manual", "schedule", "error", "webhook", "workflow")
        },
        "none": "trigger_workflow",
    }
)
"""`{trigger word: component type}`."""


def extra_config_of(step_type: StepType, step: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `extra_config` a step describes; its own keys win over its `config`.

    Raises:
        UnreadableKey: a key has a value nobody can use.
    """
    config = step.get("config") or {}
    if not isinstance(config, dict):
        raise UnreadableKey("`config` must be a mapping")
    named = {key: first_of(step, names) for key, names in step_type.keys.items()}
    given = named | step_type.more(step)
    return config | {key: value for key, value in given.items() if value is not None}

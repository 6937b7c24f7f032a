"""What a fork changes: patches as read, and what each does to the graph.

Contract: engine.md §27.6, second table.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec

from pipelit.engine.definition import NodeDef
from pipelit.engine.dsl.attachments import attach_model, attach_tool, read_tool, tool_type_of
from pipelit.engine.dsl.document import Step, parse_steps, parse_trigger
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import BuildError, ParseError
from pipelit.engine.dsl.flow import branches
from pipelit.engine.dsl.models import Catalogue, resolve
from pipelit.engine.dsl.removal import is_error_edge, remove_step
from pipelit.engine.dsl.step_types import CODE_KEYS, STEP_TYPES, first_of, without_fence
from pipelit.engine.dsl.steps_form import add_steps
from pipelit.engine.specs import complete_config, is_trigger

MAX_PATCHES = 100
"""Each may look at the whole graph."""

_STEP_KEYS = ("step_id", "step", "agent_id")
_TOOL_LABELS = frozenset({"tool", "memory"})
_MODEL_SLOT = "llm"


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `step_id` is "" for the actions that name no step."""

    action: str
    step_id: str
    keys: Mapping[str, Any]


_REQUIRED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "add_step": ("step",),
        "remove_step": ("step_id",),
        "update_prompt": ("step_id",),
        "update_config": ("step_id", "config"),
        "add_tool": ("step_id", "tool"),
        "remove_tool": (),
        "update_trigger": ("trigger",),
        "update_model": ("step_id", "model"),
    }
)
_OPTIONAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "add_step": ("after",),
        "update_prompt": ("prompt", *CODE_KEYS),
        "remove_tool": ("step_id", "tool_node_id", "tool_type"),
        "update_trigger": ("trigger_config",),
    }
)


def parse_patches(raw: Mapping[str, Any]) -> list[Patch]:
    """Read the patches of a fork.

    Raises:
        ParseError: there are none, or one is not what it should be.
    """
    patches = raw.get("patches")
    if not isinstance(patches, list):
        raise ParseError("Fork mode requires a `patches` list")
    if len(patches) > MAX_PATCHES:
        raise ParseError(f"`patches` must hold at most {MAX_PATCHES} patches")
    return [_patch(keys, position) for position, keys in enumerate(patches, start=1)]


def apply_patch(draft: Draft, patch: Patch, catalogue: Catalogue) -> None:
    """Do what one patch says.

    Raises:
        ParseError: its step or trigger is none.
        ModelResolutionError: it asks for a model that is not there.
        BuildError: it names what is not there.
    """
    known = {"action", *_REQUIRED[patch.action], *_OPTIONAL.get(patch.action, ())}
    if "step_id" in known:
        known.update(_STEP_KEYS)
    given = (key for key in patch.keys if key != "type")
    draft.warn_unknown(f"Patch {patch.action}", given, known)
    _ACTIONS[patch.action](draft, patch, catalogue)


def _patch(keys: object, position: int) -> Patch:
    if not isinstance(keys, dict):
        raise ParseError(f"Patch {position} must be a mapping")
    action = keys.get("action") or keys.get("type")
    if not action:
        raise ParseError("Patch missing `action` field")
    if not isinstance(action, str) or action not in _REQUIRED:
        raise ParseError(f"Unknown patch action: '{action}'")
    # `step` is a step of its own in `add_step`, and the name of one everywhere else.
    named = None if action == "add_step" else first_of(keys, _STEP_KEYS)
    patch = Patch(action=action, step_id="" if named is None else str(named), keys=keys)
    for key in _missing(patch):
        raise ParseError(f"{action} patch requires `{key}`")
    return patch


def _missing(patch: Patch) -> list[str]:
    keys, required = patch.keys, list(_REQUIRED[patch.action])
    if patch.action == "update_prompt" and first_of(keys, ("prompt", *CODE_KEYS)) is None:
        required.append("prompt")
    if patch.action == "remove_tool" and keys.get("tool_node_id") is None:
        required += ["step_id", "tool_type"] if patch.step_id else ["tool_node_id"]
    given = {key for key, value in keys.items() if value is not None}
    if patch.step_id:
        given.add("step_id")
    return [key for key in required if key not in given]


def _add_step(draft: Draft, patch: Patch, catalogue: Catalogue) -> None:
    after = patch.keys.get("after")
    before = None if after is None else _find(draft, patch, str(after))
    others = list(draft.nodes)
    (step,) = parse_steps([_with_id(draft, patch.keys["step"])], set(others))
    add_steps(draft, [step], catalogue, trigger_id=_trigger_id(draft), others=others)
    if before is not None:
        _insert(draft, before, step)


def _insert(draft: Draft, before: NodeDef, step: Step) -> None:
    """Put a new step behind another: what followed that one now follows the new one.

    Routes of a switch, the body of a loop and error edges stay where they were.
    """
    followed = [
        edge
        for edge in draft.edges
        if edge.source_node_id == before.node_id
        and edge.target_node_id != step.id
        and edge.edge_label in ("", "loop_return")
        and not edge.is_conditional
        and not is_error_edge(draft, edge)
    ]
    # A step that says itself what comes next has no successor of another's.
    if step.keys.get("next") is not None or branches(step):
        draft.remove_edges(followed)
    else:
        draft.move_edges(followed, step.id)
    draft.connect(before.node_id, step.id)


def _with_id(draft: Draft, step: object) -> object:
    """Return the step with the id that is made up for it, if it has none."""
    if not isinstance(step, dict) or step.get("id", step.get("name")) is not None:
        return step
    word = step.get("type")
    step_type = STEP_TYPES.get(word) if isinstance(word, str) else None
    if step_type is None:
        return step
    return step | {"id": draft.free_id(step_type.component_type, first=1)}


def _trigger_id(draft: Draft) -> str:
    trigger = _first_trigger(draft)
    return "trigger" if trigger is None else trigger.node_id


def _first_trigger(draft: Draft) -> NodeDef | None:
    return next((n for n in draft.nodes.values() if is_trigger(n.component_type)), None)


def _remove_step(draft: Draft, patch: Patch, _: Catalogue) -> None:
    remove_step(draft, _find(draft, patch, patch.step_id).node_id)


def _update_prompt(draft: Draft, patch: Patch, _: Catalogue) -> None:
    node = _find(draft, patch, patch.step_id)
    prompt, code = patch.keys.get("prompt"), first_of(patch.keys, CODE_KEYS)
    config = dict(node.config)
    if prompt is not None:
        config["system_prompt"] = str(prompt)
    if code is not None:
        config["extra_config"] = {**node.extra, "code": without_fence(str(code))}
    draft.replace(msgspec.structs.replace(node, config=config))


def _update_config(draft: Draft, patch: Patch, _: Catalogue) -> None:
    node = _find(draft, patch, patch.step_id)
    config = patch.keys["config"]
    if isinstance(config, dict) and isinstance(config.get("extra_config"), dict):
        config = {key: value for key, value in config.items() if key != "extra_config"} | config[
            "extra_config"
        ]
    if not isinstance(config, dict):
        raise ParseError("update_config: `config` must be a mapping")
    merged = {**node.config, "extra_config": {**node.extra, **config}}
    draft.replace(msgspec.structs.replace(node, config=merged))


def _add_tool(draft: Draft, patch: Patch, catalogue: Catalogue) -> None:
    node = _find(draft, patch, patch.step_id)
    kind, extra = read_tool(node.node_id, patch.keys["tool"], catalogue.caller)
    tool_id = draft.free_id(f"{kind}_{node.node_id}_patched")
    attach_tool(draft, node.node_id, tool_id, kind, extra)


def _remove_tool(draft: Draft, patch: Patch, _: Catalogue) -> None:
    named = patch.keys.get("tool_node_id")
    if named is not None:
        draft.remove_nodes([_find(draft, patch, str(named)).node_id])
        return
    node = _find(draft, patch, patch.step_id)
    kind = tool_type_of(str(patch.keys["tool_type"]))
    attached = [
        edge
        for edge in draft.edges
        if edge.target_node_id == node.node_id
        and edge.edge_label in _TOOL_LABELS
        and _type_of(draft, edge.source_node_id) == kind
    ]
    if not attached:
        raise BuildError(f"Step '{node.node_id}' has no tool '{patch.keys['tool_type']}'")
    draft.remove_edges(attached)


def _update_trigger(draft: Draft, patch: Patch, _: Catalogue) -> None:
    old = _first_trigger(draft)
    if old is None:
        raise BuildError("Step 'trigger' not found for update_trigger")
    new = parse_trigger(patch.keys)
    config = complete_config(new.component_type, new.config)
    draft.replace(msgspec.structs.replace(old, component_type=new.component_type, config=config))


def _update_model(draft: Draft, patch: Patch, catalogue: Catalogue) -> None:
    node = _find(draft, patch, patch.step_id)
    resolution = resolve(patch.keys["model"], catalogue)
    former = [
        edge
        for edge in draft.edges
        if edge.target_node_id == node.node_id and edge.edge_label == _MODEL_SLOT
    ]
    draft.remove_edges(former)
    model_id = draft.free_id(f"ai_model_{node.node_id}")
    attach_model(draft, node.node_id, resolution, model_id)


def _type_of(draft: Draft, node_id: str) -> str | None:
    node = draft.nodes.get(node_id)
    return None if node is None else node.component_type


def _find(draft: Draft, patch: Patch, node_id: str) -> NodeDef:
    node = draft.nodes.get(node_id)
    if node is None:
        raise BuildError(f"Step '{node_id}' not found for {patch.action}")
    return node


_Action: TypeAlias = Callable[[Draft, Patch, Catalogue], None]
_ACTIONS: Mapping[str, _Action] = MappingProxyType(
    {
        "add_step": _add_step,
        "remove_step": _remove_step,
        "update_prompt": _update_prompt,
        "update_config": _update_config,
        "add_tool": _add_tool,
        "remove_tool": _remove_tool,
        "update_trigger": _update_trigger,
        "update_model": _update_model,
    }
)

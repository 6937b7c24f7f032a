"""What a step has attached: its model, tools, skills, memory and parser.

Contract: engine.md §27.3 "Tools", "Skills", "Model", "Output parser".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelit.engine.dsl.document import Step
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import BuildError
from pipelit.engine.dsl.models import Caller, Catalogue, Resolution, inherit, resolve
from pipelit.engine.specs import COMPONENT_TYPES, is_tool_capable

INHERIT = "inherit"
_ALIASES: Mapping[str, str] = {"http": "http_request", "code": "code_execute"}
_NEED_MODEL = frozenset({"agent", "deep_agent", "categorizer", "extractor"})
_AGENTS = frozenset({"agent", "deep_agent"})
_PARSED = frozenset({"categorizer", "extractor"})


def resolve_models(
    steps: Iterable[Step], default: object, catalogue: Catalogue
) -> dict[str, Resolution]:
    """Find the model of each AI step: its own spec, else the document's, else the caller's.

    Returns:
        `{step id: resolution}`; a step for which nothing speaks is missing.

    Raises:
        ModelResolutionError: a spec leads to no model.
    """
    found = {}
    common: Resolution | None = None
    for step in steps:
        own = step.keys.get("model")
        if own and step.component_type in (*_NEED_MODEL, "router"):
            found[step.id] = resolve(own, catalogue)
        elif default and step.component_type in _NEED_MODEL:
            # Found once: there may be a thousand steps, and many models to choose from.
            found[step.id] = common = common or resolve(default, catalogue)
        elif step.component_type in _NEED_MODEL and catalogue.caller is not None:
            found[step.id] = Resolution(inherit(catalogue))
    return found


def attach_model(
    draft: Draft, owner: str, resolution: Resolution, node_id: str | None = None
) -> None:
    """Give a step its own model node, `ai_model_{owner}` unless it is to be another."""
    choice = resolution.model
    config = {
        "llm_credential_id": choice.credential_id,
        "model_name": choice.model_name,
        "temperature": choice.temperature,
    }
    draft.attach(node_id or f"ai_model_{owner}", "ai_model", config, owner=owner, label="llm")
    draft.warn(*resolution.warnings)


def attach_others(draft: Draft, step: Step, catalogue: Catalogue) -> None:
    """Give a step its tools, memory, skills and parser.

    Raises:
        BuildError: one of them is of no known kind, or inherits what is not there.
    """
    if step.component_type in _AGENTS:
        for number, tool in enumerate(_listed(step, "tools"), start=1):
            kind, extra = read_tool(step.id, tool, catalogue.caller)
            attach_tool(draft, step.id, f"{kind}_{step.id}_{number}", kind, extra)
        if step.keys.get("memory"):
            for kind in ("memory_read", "memory_write"):
                draft.attach(f"{kind}_{step.id}", kind, {}, owner=step.id, label="memory")
        for number, skill in enumerate(_listed(step, "skills"), start=1):
            config = {"extra_config": _skill(step, skill)}
            node_id = f"skill_{step.id}_{number}"
            draft.attach(node_id, "skill", config, owner=step.id, label="skill")
    parser = step.keys.get("output_parser")
    if parser and step.component_type in _PARSED:
        if not isinstance(parser, dict):
            raise BuildError(f"Step '{step.id}': `output_parser` must be a mapping")
        node_id, config = f"output_parser_{step.id}", {"extra_config": parser}
        draft.attach(node_id, "output_parser", config, owner=step.id, label="output_parser")


def _listed(step: Step, key: str) -> list[Any]:
    written = step.keys.get(key) or []
    if not isinstance(written, list):
        raise BuildError(f"Step '{step.id}': `{key}` must be a list")
    return written


def tool_type_of(word: str) -> str:
    """Return the component type a tool's name stands for."""
    return _ALIASES.get(word, word)


def read_tool(owner: str, tool: object, caller: Caller | None) -> tuple[str, dict[str, Any]]:
    """Read an inline tool of the step *owner*: its component type and its `extra_config`.

    Raises:
        BuildError: it is of no known kind, or inherits what is not there.
    """
    keys = dict(tool) if isinstance(tool, dict) else {"type": tool}
    word = keys.pop("type", None)
    component_type = tool_type_of(word) if isinstance(word, str) else ""
    if not is_tool_capable(component_type):
        valid = [kind for kind in COMPONENT_TYPES if is_tool_capable(kind)]
        raise BuildError(
            f"Unknown inline tool type '{word}'. Valid: {', '.join([*valid, *_ALIASES])}"
        )
    config = keys.pop("config", None) or {}
    if not isinstance(config, dict):
        raise BuildError(f"Step '{owner}': `config` of a tool must be a mapping")
    extra = {
        key: _inherited(component_type, key, caller) if value == INHERIT else value
        for key, value in {**config, **keys}.items()
    }
    return component_type, extra


def attach_tool(
    draft: Draft, owner: str, node_id: str, component_type: str, extra: Mapping[str, Any]
) -> None:
    """Give a step a tool that `read_tool` read."""
    draft.attach(node_id, component_type, {"extra_config": extra}, owner=owner, label="tool")


def _inherited(component_type: str, key: str, caller: Caller | None) -> Any:
    if caller is None:
        raise BuildError("Cannot inherit tool config: no parent node")
    donor = caller.tools.get(component_type)
    if donor is None:
        raise BuildError(
            f"No matching tool '{component_type}' found on parent node '{caller.node_id}'"
        )
    if key not in donor:
        raise BuildError(f"Parent tool '{component_type}' has no key '{key}' in extra_config")
    return donor[key]


def _skill(step: Step, skill: object) -> dict[str, Any]:
    if isinstance(skill, str):
        return {"skill_path": skill}
    if isinstance(skill, dict) and isinstance(skill.get("path"), str):
        source = skill.get("source")
        return {"skill_path": skill["path"]} | ({"skill_source": source} if source else {})
    raise BuildError(f"Step '{step.id}': a skill must be a path or a mapping with `path`")

"""The steps form becomes nodes and edges. Contract: engine.md §27.2, §27.3."""

from collections.abc import Mapping
from typing import Any

from pipelit.engine.dsl.attachments import attach_model, attach_others, resolve_models
from pipelit.engine.dsl.document import Document, Step
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import BuildError, UnreadableKey
from pipelit.engine.dsl.flow import all_steps, connect_steps
from pipelit.engine.dsl.models import Catalogue
from pipelit.engine.dsl.step_types import extra_config_of, first_of


def build_steps_form(document: Document, catalogue: Catalogue) -> Draft:
    """Build what *document* describes: the flow first, then what is attached to it.

    Raises:
        ModelResolutionError: a model spec leads to no model.
        BuildError: a step cannot be made a node, or names one that is not there.
    """
    steps = list(all_steps(document.steps))
    models = resolve_models(steps, document.model, catalogue)
    draft = Draft()
    trigger = document.trigger
    config = {"extra_config": trigger.extra_config, "trigger_config": trigger.trigger_config}
    draft.add_step(trigger.node_id, trigger.component_type, config)
    for step in steps:
        _add(draft, step, trigger.node_id)
    connect_steps(draft, document)
    for step in steps:
        if step.id in models:
            attach_model(draft, step, models[step.id])
        attach_others(draft, step, catalogue)
    return draft


def _add(draft: Draft, step: Step, trigger_id: str) -> None:
    try:
        extra = extra_config_of(step.step_type, step.keys)
    except UnreadableKey as error:
        raise BuildError(f"Step '{step.id}': {error}") from error
    if extra.get("source_node") == "trigger":
        extra["source_node"] = trigger_id
    label = step.keys.get("label")
    draft.add_step(
        step.id,
        step.component_type,
        {"system_prompt": _prompt(step), "extra_config": extra},
        label=None if label is None else str(label),
        interrupt_before=bool(step.keys.get("interrupt_before")),
        interrupt_after=bool(step.keys.get("interrupt_after")),
    )


def _prompt(step: Step) -> str:
    keys: Mapping[str, Any] = step.keys if step.step_type.prompt else {}
    prompt = first_of(keys, ("prompt", "system_prompt"))
    return "" if prompt is None else str(prompt)

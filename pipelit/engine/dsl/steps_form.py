"""The steps form becomes nodes and edges. Contract: engine.md §27.2, §27.3."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipelit.engine.dsl.attachments import attach_model, attach_others, resolve_models
from pipelit.engine.dsl.document import TOP_KEYS, Document, Step
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import BuildError, UnreadableKey
from pipelit.engine.dsl.flow import all_steps, connect_steps
from pipelit.engine.dsl.models import Catalogue
from pipelit.engine.dsl.step_types import PROMPT_KEYS, extra_config_of, first_of


def build_steps_form(document: Document, catalogue: Catalogue) -> Draft:
    """Build what *document* describes: the flow first, then what is attached to it.

    Raises:
        ModelResolutionError: a model spec leads to no model.
        BuildError: a step cannot be made a node, or names one that is not there.
    """
    draft, trigger = Draft(), document.trigger
    draft.warn_unknown("", document.keys, TOP_KEYS)
    draft.add_step(trigger.node_id, trigger.component_type, trigger.config)
    # Drawn before all others, though its target comes only now.
    draft.connect(trigger.node_id, document.steps[0].id)
    add_steps(draft, document.steps, catalogue, model=document.model, trigger_id=trigger.node_id)
    return draft


def add_steps(
    draft: Draft,
    written: Sequence[Step],
    catalogue: Catalogue,
    *,
    trigger_id: str,
    model: object = None,
    others: Collection[str] = (),
) -> None:
    """Add steps with what is attached to them, and the edges that leave them.

    Args:
        trigger_id: what `trigger` stands for in `over`.
        model: the spec for steps that have none of their own.
        others: nodes that are there already; steps may name them.

    Raises:
        ModelResolutionError: a model spec leads to no model.
        BuildError: a step cannot be made a node, or names one that is not there.
    """
    steps = list(all_steps(written))
    models = resolve_models(steps, model, catalogue)
    for step in steps:
        _add(draft, step, trigger_id)
    connect_steps(draft, written, others)
    for step in steps:
        if step.id in models:
            attach_model(draft, step.id, models[step.id])
        attach_others(draft, step, catalogue)


def _add(draft: Draft, step: Step, trigger_id: str) -> None:
    try:
        extra = extra_config_of(step.step_type, step.keys)
    except UnreadableKey as error:
        raise BuildError(f"Step '{step.id}': {error}") from error
    if extra.get("source_node") == "trigger":
        extra["source_node"] = trigger_id
    draft.warn_unknown(f"Step '{step.id}'", step.keys, step.step_type.known_keys())
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
    prompt = first_of(keys, PROMPT_KEYS)
    return "" if prompt is None else str(prompt)

"""The steps form as read, before anything is made of it.

Contract: engine.md §27.2, §27.3.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipelit.engine.dsl.errors import ParseError
from pipelit.engine.dsl.step_types import STEP_TYPES, TRIGGER_WORDS, StepType

_STEP_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}")
MAX_NAME = 255
TOP_KEYS = frozenset(
    {"name", "description", "tags", "trigger", "trigger_config", "model"}
    | {"max_execution_seconds", "steps"}
)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a document says about the workflow itself."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    max_execution_seconds: int | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step: its identity, its keys as written, and the steps of its body if it is a loop."""

    id: str
    step_type: StepType
    keys: Mapping[str, Any]
    body: tuple["Step", ...] = ()

    @property
    def component_type(self) -> str:
        """The component type the step becomes."""
        return self.step_type.component_type


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What starts the workflow."""

    component_type: str
    extra_config: Mapping[str, Any]
    trigger_config: Mapping[str, Any]

    @property
    def node_id(self) -> str:
        """The id its node gets."""
        return f"{self.component_type}_1"

    @property
    def config(self) -> dict[str, Any]:
        """The settings of its node."""
        return {"extra_config": self.extra_config, "trigger_config": self.trigger_config}


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document in steps form.

    `model` is the spec for steps that have none of their own, `keys` all keys of the document.
    """

    head: Head
    trigger: Trigger
    model: Any
    steps: tuple[Step, ...]
    keys: tuple[str, ...] = ()


def parse_steps_form(raw: Mapping[str, Any]) -> Document:
    """Read a document that has `steps`.

    Raises:
        ParseError: it is not one.
    """
    head = parse_head(raw, raw.get("max_execution_seconds"))
    if "steps" not in raw:
        raise ParseError("DSL requires a `steps` list")
    if not isinstance(raw["steps"], list) or not raw["steps"]:
        raise ParseError("`steps` must be a non-empty list")
    return Document(
        head=head,
        trigger=parse_trigger(raw),
        model=raw.get("model"),
        steps=tuple(parse_steps(raw["steps"], set())),
        keys=tuple(raw),
    )


def parse_head(raw: Mapping[str, Any], max_execution_seconds: object = None) -> Head:
    """Read name, description and tags.

    Raises:
        ParseError: the name is missing, or something is of the wrong kind.
    """
    name, tags = raw.get("name"), raw.get("tags") or []
    if not isinstance(name, str) or not name.strip():
        raise ParseError("DSL requires a `name` field")
    if len(name) > MAX_NAME:
        raise ParseError(f"`name` must be at most {MAX_NAME} characters")
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise ParseError("`tags` must be a list of texts")
    seconds = max_execution_seconds
    if seconds is not None and (type(seconds) is not int or not 1 <= seconds <= 86_400):
        raise ParseError("`max_execution_seconds` must be an integer from 1 to 86400")
    return Head(
        name=name,
        description=str(raw.get("description") or ""),
        tags=tuple(tags),
        max_execution_seconds=seconds,
    )


def parse_trigger(raw: Mapping[str, Any]) -> Trigger:
    """Read `trigger` and `trigger_config`.

    Raises:
        ParseError: the trigger is of no known type, or its settings are no mapping.
    """
    written = raw.get("trigger")
    keys = dict(written) if isinstance(written, dict) else {"type": written}
    word = keys.pop("type", None) or "none"
    component_type = TRIGGER_WORDS.get(word) if isinstance(word, str) else None
    if component_type is None:
        valid = ", ".join(TRIGGER_WORDS)
        raise ParseError(f"Unknown trigger type '{word}'. Valid: {valid}")
    config = raw.get("trigger_config") or {}
    if not isinstance(config, dict):
        raise ParseError("`trigger_config` must be a mapping")
    return Trigger(component_type=component_type, extra_config=keys, trigger_config=config)


def parse_steps(raw: list[Any], taken: set[str], prefix: str = "") -> Iterator[Step]:
    """Read a list of steps.

    Args:
        taken: ids that are in use already; those of the steps are added.
        prefix: goes in front of the ids that are made up.

    Raises:
        ParseError: one of them is no step.
    """
    for position, keys in enumerate(raw, start=1):
        if not isinstance(keys, dict):
            raise ParseError(f"Step {position} must be a mapping")
        step_type = _step_type(keys, position)
        written = keys.get("id", keys.get("name"))
        step_id = f"{prefix}{step_type.component_type}_{position}"
        if written is not None:
            step_id = str(written)
        if not _STEP_ID.fullmatch(step_id):
            raise ParseError(f"Invalid step ID '{step_id}' in step {position}")
        if step_id in taken:
            raise ParseError(f"Duplicate step ID '{step_id}' in step {position}")
        taken.add(step_id)
        body: tuple[Step, ...] = ()
        if step_type.component_type == "loop":
            body = tuple(parse_steps(_body(keys, step_id), taken, f"{step_id}_"))
        yield Step(id=step_id, step_type=step_type, keys=keys, body=body)


def _step_type(keys: Mapping[str, Any], position: int) -> StepType:
    word = keys.get("type")
    if word is None:
        raise ParseError(f"Step {position} missing `type` field")
    step_type = STEP_TYPES.get(word) if isinstance(word, str) else None
    if step_type is None:
        valid = ", ".join(STEP_TYPES)
        raise ParseError(f"Unknown step type '{word}' in step {position}. Valid: {valid}")
    return step_type


def _body(keys: Mapping[str, Any], step_id: str) -> list[Any]:
    body = keys.get("body")
    if not isinstance(body, list) or not body:
        raise ParseError(f"Loop step '{step_id}' requires a non-empty `body` list")
    return body

"""A document becomes a workflow: the two questions one may ask of it.

Contract: engine.md §27.1, workflows.md "validate-dsl".
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pipelit.engine.advice import Origin
from pipelit.engine.definition import MAX_EDGES, MAX_NODES, EdgeDef, NodeDef
from pipelit.engine.dsl.document import Head, parse_steps_form
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import BuildError, DslError
from pipelit.engine.dsl.fork import FindSource, build_fork, no_source, parse_based_on
from pipelit.engine.dsl.graph_form import build_graph_form, parse_graph_head
from pipelit.engine.dsl.models import Catalogue
from pipelit.engine.dsl.source import load_mapping
from pipelit.engine.dsl.steps_form import build_steps_form
from pipelit.engine.validate import Report, validate_workflow

_MAX_SLUG = 255
_FORK = "based_on"


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A sound workflow that is not stored yet.

    `slug` is the name's; whoever stores it appends `-2`, `-3` … if it is taken. Row ids count
    from 1 in the order nodes and edges are to be created. `forked_from` is the slug of the
    workflow it was made of.
    """

    name: str
    slug: str
    description: str
    tags: tuple[str, ...]
    max_execution_seconds: int | None
    nodes: tuple[NodeDef, ...]
    edges: tuple[EdgeDef, ...]
    warnings: tuple[str, ...] = ()
    forked_from: str | None = None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a document is worth. The counts are those of the graph it would build, 0 for a fork."""

    valid: bool
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    node_count: int = 0
    edge_count: int = 0


def compile_document(
    text: str, catalogue: Catalogue, find_source: FindSource = no_source
) -> Compiled:
    """Compile a document of any form.

    Raises:
        DslError: it does not compile; the subclass says at which stage.
    """
    raw = load_mapping(text)
    head, draft = _build(raw, catalogue, find_source)
    report = _validate(head, draft)
    if not report.valid:
        raise BuildError(*report.errors)
    return Compiled(
        name=head.name,
        slug=slug_of(head.name),
        description=head.description,
        tags=head.tags,
        max_execution_seconds=head.max_execution_seconds,
        nodes=tuple(draft.nodes.values()),
        edges=tuple(draft.edges),
        warnings=(*draft.warnings, *report.warnings),
        forked_from=raw.get(_FORK),
    )


def check_document(text: str, catalogue: Catalogue, find_source: FindSource = no_source) -> Checked:
    """Tell whether a document compiles; a broken one is a result, not an error."""
    try:
        raw = load_mapping(text)
        head, draft = _build(raw, catalogue, find_source)
    except DslError as error:
        return Checked(valid=False, errors=tuple(error.staged()))
    report = _validate(head, draft)
    return Checked(
        valid=report.valid,
        errors=tuple(BuildError(*report.errors).staged()),
        warnings=(*draft.warnings, *report.warnings),
        node_count=0 if _FORK in raw else len(draft.nodes),
        edge_count=0 if _FORK in raw else len(draft.edges),
    )


def source_slug(text: str) -> str | None:
    """Return the slug of the workflow that a document forks; None if it forks none.

    Raises:
        ParseError: it is no document.
    """
    raw = load_mapping(text)
    return parse_based_on(raw) if _FORK in raw else None


def slug_of(name: str) -> str:
    """Return the slug a workflow of this name gets, if it is free."""
    words = re.sub(r"[^\w\s-]", "", name.lower(), flags=re.ASCII)
    slug = re.sub(r"[\s_-]+", "-", words).strip("-")
    return slug[:_MAX_SLUG].rstrip("-") or "workflow"


def _build(
    raw: Mapping[str, Any], catalogue: Catalogue, find_source: FindSource
) -> tuple[Head, Draft]:
    if _FORK in raw:
        head, draft = build_fork(raw, catalogue, find_source)
    elif "nodes" in raw and "steps" not in raw:
        head, draft = parse_graph_head(raw), build_graph_form(raw)
    else:
        document = parse_steps_form(raw)
        head, draft = document.head, build_steps_form(document, catalogue)
    _check_size(draft)
    return head, draft


def _check_size(draft: Draft) -> None:
    if len(draft.nodes) > MAX_NODES:
        raise BuildError("Workflow node limit reached.")
    if len(draft.edges) > MAX_EDGES:
        raise BuildError("Workflow edge limit reached.")


def _validate(head: Head, draft: Draft) -> Report:
    origin = Origin(slug=slug_of(head.name))
    return validate_workflow(draft.nodes.values(), draft.edges, origin)

"""A document becomes a workflow: the two questions one may ask of it.

Contract: engine.md §27.1, workflows.md "validate-dsl".
"""

import re

import msgspec

from pipelit.engine.advice import Origin
from pipelit.engine.definition import MAX_EDGES, MAX_NODES, EdgeDef, NodeDef
from pipelit.engine.dsl.document import Head, parse_steps_form
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import BuildError, DslError, ParseError
from pipelit.engine.dsl.graph_form import build_graph_form, parse_graph_head
from pipelit.engine.dsl.models import Catalogue
from pipelit.engine.dsl.source import load_mapping
from pipelit.engine.dsl.steps_form import build_steps_form
from pipelit.engine.validate import Report, validate_workflow

_MAX_SLUG = 255


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A sound workflow that is not stored yet.

    `slug` is the name's; whoever stores it appends `-2`, `-3` … if it is taken. Row ids count
    from 1 in the order nodes and edges are to be created.
    """

    name: str
    slug: str
    description: str
    tags: tuple[str, ...]
    max_execution_seconds: int | None
    nodes: tuple[NodeDef, ...]
    edges: tuple[EdgeDef, ...]
    warnings: tuple[str, ...] = ()


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a document is worth. The counts are those of the graph it would build."""

    valid: bool
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    node_count: int = 0
    edge_count: int = 0


def compile_document(text: str, catalogue: Catalogue) -> Compiled:
    """Compile a document in steps or graph form.

    Raises:
        DslError: it does not compile; the subclass says at which stage.
    """
    head, draft = _build(text, catalogue)
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
    )


def check_document(text: str, catalogue: Catalogue) -> Checked:
    """Tell whether a document compiles; a broken one is a result, not an error."""
    try:
        head, draft = _build(text, catalogue)
    except DslError as error:
        return Checked(valid=False, errors=tuple(error.staged()))
    report = _validate(head, draft)
    return Checked(
        valid=report.valid,
        errors=tuple(BuildError(*report.errors).staged()),
        warnings=(*draft.warnings, *report.warnings),
        node_count=len(draft.nodes),
        edge_count=len(draft.edges),
    )


def slug_of(name: str) -> str:
    """Return the slug a workflow of this name gets, if it is free."""
    words = re.sub(r"[^\w\s-]", "", name.lower(), flags=re.ASCII)
    slug = re.sub(r"[\s_-]+", "-", words).strip("-")
    return slug[:_MAX_SLUG].rstrip("-") or "workflow"


def _build(text: str, catalogue: Catalogue) -> tuple[Head, Draft]:
    raw = load_mapping(text)
    if "based_on" in raw:
        raise ParseError("The fork form (`based_on`) cannot be compiled without its source")
    if "nodes" in raw and "steps" not in raw:
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

"""The fork form: another workflow, with patches. Contract: engine.md §27.6."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from pipelit.engine.definition import EdgeDef, NodeDef
from pipelit.engine.dsl.document import MAX_NAME, Head, parse_head
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import ParseError, SourceNotFound
from pipelit.engine.dsl.models import Catalogue
from pipelit.engine.dsl.patches import apply_patch, parse_patches

_TOP_KEYS = frozenset({"based_on", "patches", "name", "description", "tags"})


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A stored workflow that a fork may start from."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    nodes: tuple[NodeDef, ...]
    edges: tuple[EdgeDef, ...]


FindSource: TypeAlias = Callable[[str], Source | None]
"""Finds a workflow by its slug among those whoever asks may see."""


def no_source(_: str) -> None:
    """Find nothing: for whoever has no workflows to fork."""


def parse_based_on(raw: Mapping[str, Any]) -> str:
    """Return the slug of the workflow a document forks.

    Raises:
        ParseError: it is no text.
    """
    slug = raw.get("based_on")
    if not isinstance(slug, str) or not slug:
        raise ParseError("`based_on` must be the slug of a workflow")
    return slug


def build_fork(
    raw: Mapping[str, Any], catalogue: Catalogue, find_source: FindSource
) -> tuple[Head, Draft]:
    """Clone the source and apply the patches in order. The source never changes.

    Raises:
        ParseError: the document is none of this form.
        SourceNotFound: there is no source.
        ModelResolutionError: a patch asks for a model that is not there.
        BuildError: a patch names what is not there.
    """
    slug = parse_based_on(raw)
    patches = parse_patches(raw)
    source = find_source(slug)
    if source is None:
        raise SourceNotFound(slug)
    draft = Draft.of(source.nodes, source.edges)
    draft.warn_unknown("", raw, _TOP_KEYS)
    for patch in patches:
        apply_patch(draft, patch, catalogue)
    draft.number()
    return _head(raw, source), draft


def _head(raw: Mapping[str, Any], source: Source) -> Head:
    suffix = " (fork)"
    inherited = {
        "name": source.name[: MAX_NAME - len(suffix)] + suffix,
        "description": source.description,
        "tags": list(source.tags),
    }
    return parse_head(inherited | {key: value for key, value in raw.items() if value is not None})

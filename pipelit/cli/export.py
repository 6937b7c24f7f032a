"""`pipelit workflow export`: a stored workflow as a YAML document in graph form.

Contract: engine.md §27.5, operations.md §4.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from pipelit.cli.client import Client
from pipelit.cli.create import DocumentError
from pipelit.engine.definition import EdgeDef, NodeDef
from pipelit.engine.dsl import DslError, Head, write_document
from pipelit.engine.validate import validate_workflow
from pipelit.settings import Settings


class Exported(msgspec.Struct, frozen=True):
    """A document, and why `import` would refuse it as it is."""

    text: str
    errors: tuple[str, ...]


async def export_workflow(client: Client, slug: str) -> Exported:
    """Write a workflow of the server down.

    Raises:
        DocumentError: it is too large for a document.
    """
    detail = await client.get(f"/workflows/{quote(slug, safe='')}/")
    nodes = msgspec.convert(detail["nodes"], tuple[NodeDef, ...])
    edges = msgspec.convert(detail["edges"], tuple[EdgeDef, ...])
    try:
        text = write_document(_head(detail), nodes, edges)
    except DslError as error:
        raise DocumentError(*error.problems) from None
    return Exported(text, validate_workflow(nodes, edges).errors)


def _head(detail: dict[str, Any]) -> Head:
    seconds = detail["max_execution_seconds"]
    # The server tells the number in force; what it is by default goes without saying.
    by_default = seconds == Settings.model_fields["max_execution_seconds"].default
    return Head(
        name=detail["name"],
        description=detail["description"],
        tags=tuple(detail["tags"] or ()),
        max_execution_seconds=None if by_default else seconds,
    )

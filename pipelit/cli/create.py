"""`pipelit workflow create` and `import`: compile a YAML document here, store it through the API.

Contract: engine.md §27.1.
"""

from itertools import count
from typing import Any
from urllib.parse import quote

import click
import msgspec

from pipelit.cli.build import build_workflow
from pipelit.cli.client import Client, ServerRefusedError
from pipelit.engine.definition import EdgeDef, NodeDef
from pipelit.engine.dsl import (
    Catalogue,
    Compiled,
    DslError,
    LlmCredential,
    Resolution,
    Source,
    compile_document,
    resolve,
    source_slug,
)

CREDENTIALS_LIMIT = 1000
MAX_SLUG_TRIES = 100
_MODEL = "ai_model"


class DocumentError(click.ClickException):
    """The document does not compile: exit code 1, each problem on a line."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that is stored, as the contract's compile result tells it."""

    success: bool = True
    workflow_id: int
    slug: str
    node_count: int
    edge_count: int
    mode: str
    warnings: tuple[str, ...]


async def create_workflow(client: Client, text: str, model: str | None = None) -> Made:
    """Compile *text* with what the server has and store the workflow.

    The slug is the name's, with `-2`, `-3` … if it is taken.

    Args:
        model: a model spec that replaces every model of the document.

    Raises:
        DocumentError: it does not compile; nothing was stored.
        ServerRefusedError: the server refused a part; nothing is left of it.
    """
    catalogue = await _load_catalogue(client)
    try:
        slug = source_slug(text)
        source = None if slug is None else await _load_source(client, slug)
        compiled = compile_document(text, catalogue, lambda _: source)
        if model is not None:
            compiled = _with_model(compiled, resolve(model, catalogue))
    except DslError as error:
        raise DocumentError(*error.staged()) from None
    _require_credentials(compiled, catalogue)
    return await _store(client, compiled)


async def _load_catalogue(client: Client) -> Catalogue:
    """Ask the server which models its credentials offer."""
    page = await client.get("/credentials/", limit=CREDENTIALS_LIMIT)
    found = []
    for credential in page["items"]:
        if credential["credential_type"] == "llm":
            models = await client.get(f"/credentials/{credential['id']}/models/")
            found.append(
                LlmCredential(
                    id=credential["id"],
                    provider_type=credential["detail"]["provider_type"],
                    # An empty list means that the provider did not answer: not known.
                    models=tuple(model["id"] for model in models) or None,
                )
            )
    return Catalogue(credentials=tuple(found))


async def _load_source(client: Client, slug: str) -> Source | None:
    try:
        detail = await client.get(f"/workflows/{quote(slug, safe='')}/")
    except ServerRefusedError as error:
        if error.status == 404:
            return None
        raise
    return Source(
        name=detail["name"],
        description=detail["description"],
        tags=tuple(detail["tags"] or ()),
        nodes=msgspec.convert(detail["nodes"], tuple[NodeDef, ...]),
        edges=msgspec.convert(detail["edges"], tuple[EdgeDef, ...]),
    )


def _with_model(compiled: Compiled, found: Resolution) -> Compiled:
    model = found.model

    def change(node: NodeDef) -> NodeDef:
        if node.component_type != _MODEL:
            return node
        chosen = {"llm_credential_id": model.credential_id, "model_name": model.model_name}
        return msgspec.structs.replace(node, config={**node.config, **chosen})

    return msgspec.structs.replace(
        compiled,
        nodes=tuple(map(change, compiled.nodes)),
        warnings=(*compiled.warnings, *found.warnings),
    )


def _require_credentials(compiled: Compiled, catalogue: Catalogue) -> None:
    """Refuse credentials that this server does not have, before anything is stored.

    Raises:
        DocumentError: there is one; it says what to do.
    """
    known = {credential.id for credential in catalogue.credentials}
    for node in compiled.nodes:
        wanted = node.config["llm_credential_id"]
        if node.component_type == _MODEL and wanted is not None and wanted not in known:
            raise DocumentError(
                f"Node '{node.node_id}' uses credential {wanted}, which this server does not have.",
                "Choose one of its own models: --model NAME, or --model discover.",
            )


async def _store(client: Client, compiled: Compiled) -> Made:
    slug = compiled.slug
    nodes, edges = list(map(_body, compiled.nodes)), list(map(_body, compiled.edges))
    for number in count(2):
        try:
            created = await build_workflow(client, _head(compiled, slug), nodes, edges)
        except ServerRefusedError as error:
            if error.status != 409 or "slug" not in error.message or number > MAX_SLUG_TRIES:
                raise
            slug = f"{compiled.slug}-{number}"
        else:
            break
    return Made(
        workflow_id=created["id"],
        slug=slug,
        node_count=len(nodes),
        edge_count=len(edges),
        mode="created" if compiled.forked_from is None else "forked",
        warnings=compiled.warnings,
    )


def _head(compiled: Compiled, slug: str) -> dict[str, Any]:
    return {
        "name": compiled.name,
        "slug": slug,
        "description": compiled.description,
        "tags": list(compiled.tags) or None,
        "max_execution_seconds": compiled.max_execution_seconds,
    }


def _body(part: Any) -> dict[str, Any]:
    """Return the request body of a node or an edge: all of it but the row id."""
    body: dict[str, Any] = msgspec.to_builtins(part)
    del body["id"]
    return body

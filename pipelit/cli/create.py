"""`pipelit workflow create`: compile a YAML document here, store it through the API.

Contract: engine.md §27.1.
"""

from itertools import count
from typing import Any

import click
import msgspec

from pipelit.cli.build import build_workflow
from pipelit.cli.client import Client, ServerRefusedError
from pipelit.engine.dsl import Catalogue, Compiled, DslError, LlmCredential, compile_document

CREDENTIALS_LIMIT = 1000
MAX_SLUG_TRIES = 100


class DocumentError(click.ClickException):
    """The document does not compile: exit code 1, each problem on a line."""

    def __init__(self, error: DslError) -> None:
        super().__init__("\n".join(error.staged()))


async def create_workflow(client: Client, text: str) -> Compiled:
    """Compile *text* with the server's models and store the workflow; return it as stored.

    The slug is the name's, with `-2`, `-3` … if it is taken.

    Raises:
        DocumentError: it does not compile; nothing was stored.
        ServerRefusedError: the server refused a part; nothing is left of it.
    """
    catalogue = await _load_catalogue(client)
    try:
        compiled = compile_document(text, catalogue)
    except DslError as error:
        raise DocumentError(error) from None
    for number in count(2):
        try:
            await _store(client, compiled)
        except ServerRefusedError as error:
            if error.status != 409 or "slug" not in error.message or number > MAX_SLUG_TRIES:
                raise
            stem = compiled.slug.removesuffix(f"-{number - 1}")
            compiled = msgspec.structs.replace(compiled, slug=f"{stem}-{number}")
        else:
            break
    return compiled


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


async def _store(client: Client, compiled: Compiled) -> str:
    head = {
        "name": compiled.name,
        "slug": compiled.slug,
        "description": compiled.description,
        "tags": list(compiled.tags) or None,
        "max_execution_seconds": compiled.max_execution_seconds,
    }
    return await build_workflow(
        client, head, list(map(_body, compiled.nodes)), list(map(_body, compiled.edges))
    )


def _body(part: Any) -> dict[str, Any]:
    """Return the request body of a node or an edge: all of it but the row id."""
    body: dict[str, Any] = msgspec.to_builtins(part)
    del body["id"]
    return body

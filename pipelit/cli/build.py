"""Store a whole workflow through the API: all of it or nothing."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import trio

from pipelit.cli.client import Client

CLEAN_UP_SECONDS = 10.0


async def build_workflow(
    client: Client,
    head: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    edges: Sequence[Mapping[str, Any]],
) -> str:
    """Create a workflow with its nodes and edges and return its slug.

    Whatever goes wrong on the way, a refusal or Ctrl-C, the half-made workflow is deleted again.

    Raises:
        ServerRefusedError: the server refused a part; its words say which.
    """
    slug = str((await client.post("/workflows/", head))["slug"])
    path = f"/workflows/{quote(slug, safe='')}/"
    complete = False
    try:
        for node in nodes:
            await client.post(f"{path}nodes/", node)
        for edge in edges:
            await client.post(f"{path}edges/", edge)
        complete = True
    finally:
        if not complete:
            with trio.move_on_after(CLEAN_UP_SECONDS, shield=True):
                await client.delete(path)
    return slug

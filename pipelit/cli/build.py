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
) -> dict[str, Any]:
    """Create a workflow with its nodes and edges and return it as the server first told it.

    Whatever goes wrong on the way, a refusal or Ctrl-C, the half-made workflow is deleted again.

    Raises:
        ServerRefusedError: the server refused a part; its words say which.
    """
    created: dict[str, Any] = await client.post("/workflows/", head)
    path = f"/workflows/{quote(str(created['slug']), safe='')}/"
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
    return created

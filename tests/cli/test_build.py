"""A workflow is stored whole or not at all."""

import pytest

from pipelit.cli.build import build_workflow
from pipelit.cli.client import Client, ServerRefusedError
from tests.cli.fake_server import serving

HEAD = {"name": "Demo", "slug": "demo"}


async def test_head_nodes_and_edges_are_sent_in_this_order() -> None:
    """Edges name nodes, so nodes come first."""
    async with serving() as server, Client.open(server.target) as client:
        server.answer("POST", "/workflows/", 201, HEAD)
        server.answer("POST", "/workflows/demo/nodes/", 201, {})
        server.answer("POST", "/workflows/demo/edges/", 201, {})
        created = await build_workflow(client, HEAD, [{"node_id": "a"}], [{"source_node_id": "a"}])

    assert created == HEAD
    assert [(path, body) for _, path, body in server.asked] == [
        ("/workflows/", HEAD),
        ("/workflows/demo/nodes/", {"node_id": "a"}),
        ("/workflows/demo/edges/", {"source_node_id": "a"}),
    ]


async def test_a_refused_part_deletes_what_was_made() -> None:
    """The server's words reach the caller, the half-made workflow does not stay."""
    async with serving() as server, Client.open(server.target) as client:
        server.answer("POST", "/workflows/", 201, HEAD)
        server.answer("POST", "/workflows/demo/nodes/", 422, {"detail": "bad node"})
        server.answer("DELETE", "/workflows/demo/", 204)
        with pytest.raises(ServerRefusedError, match="bad node"):
            await build_workflow(client, HEAD, [{"node_id": "a"}], [])

    assert server.asked[-1][:2] == ("DELETE", "/workflows/demo/")


async def test_a_refused_workflow_deletes_nothing() -> None:
    """The slug may belong to somebody else."""
    async with serving() as server, Client.open(server.target) as client:
        server.answer("POST", "/workflows/", 409, {"detail": "taken"})
        with pytest.raises(ServerRefusedError, match="taken"):
            await build_workflow(client, HEAD, [], [])

    assert [method for method, _, _ in server.asked] == ["POST"]

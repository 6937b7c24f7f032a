"""A YAML document becomes a workflow on the server."""

from pathlib import Path

import pytest

from pipelit.cli.client import Client
from pipelit.cli.create import DocumentError, create_workflow
from tests.cli.fake_server import FakeServer, serving

DESK = (Path(__file__).parent.parent.parent / "examples" / "desk.yaml").read_text()


def offer_models(server: FakeServer) -> None:
    """One credential for models and one for something else."""
    credentials = [
        {"id": 3, "credential_type": "git", "detail": {}},
        {"id": 4, "credential_type": "llm", "detail": {"provider_type": "openai_compatible"}},
    ]
    server.answer("GET", "/credentials/", 200, {"items": credentials, "total": 2})
    server.answer("GET", "/credentials/4/models/", 200, [{"id": "demo-1", "name": "demo-1"}])


async def test_the_example_is_compiled_with_the_servers_models() -> None:
    """The model of the document is found in the credential that offers it."""
    async with serving() as server, Client.open(server.target) as client:
        offer_models(server)
        server.answer("POST", "/workflows/", 201, {"slug": "desk"})
        server.answer("POST", "/workflows/desk/nodes/", 201, {})
        server.answer("POST", "/workflows/desk/edges/", 201, {})
        compiled = await create_workflow(client, DESK)

    bodies = {body["node_id"]: body for _, path, body in server.asked if path.endswith("/nodes/")}
    edges = [body for _, path, body in server.asked if path.endswith("/edges/")]
    assert compiled.slug == "desk"
    assert bodies["ai_model_assistant"]["config"]["llm_credential_id"] == 4
    assert bodies["ai_model_assistant"]["config"]["model_name"] == "demo-1"
    assert "id" not in bodies["result"]
    assert {edge["condition_value"] for edge in edges} == {"", "result", "__other__"}


async def test_a_document_that_does_not_compile_stores_nothing() -> None:
    """Every problem is told with its stage."""
    async with serving() as server, Client.open(server.target) as client:
        offer_models(server)
        with pytest.raises(DocumentError) as caught:
            await create_workflow(client, "steps: []")

    assert caught.value.message.startswith("Parse error: ")
    assert not [one for one in server.asked if one[0] == "POST"]


async def test_a_taken_slug_gets_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """`desk` and `desk-2` are taken, so the third is `desk-3`."""
    taken = {"detail": "Workflow with slug 'desk' already exists."}
    async with serving() as server, Client.open(server.target) as client:
        offer_models(server)
        server.answer("POST", "/workflows/", 409, taken)
        monkeypatch.setattr("pipelit.cli.create.MAX_SLUG_TRIES", 3)
        with pytest.raises(Exception, match="already exists"):
            await create_workflow(client, DESK)

    tried = [body["slug"] for method, _, body in server.asked if method == "POST"]
    assert tried == ["desk", "desk-2", "desk-3"]

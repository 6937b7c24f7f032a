"""A YAML document becomes a workflow on the server."""

from pathlib import Path

import pytest

from pipelit.cli.client import Client
from pipelit.cli.create import DocumentError, create_workflow
from pipelit.cli.export import export_workflow
from pipelit.engine.specs import complete_config
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
        server.answer("POST", "/workflows/", 201, {"slug": "desk", "id": 7})
        server.answer("POST", "/workflows/desk/nodes/", 201, {})
        server.answer("POST", "/workflows/desk/edges/", 201, {})
        made = await create_workflow(client, DESK)

    bodies = {body["node_id"]: body for _, path, body in server.asked if path.endswith("/nodes/")}
    edges = [body for _, path, body in server.asked if path.endswith("/edges/")]
    assert (made.slug, made.workflow_id, made.mode) == ("desk", 7, "created")
    assert (made.node_count, made.edge_count) == (len(bodies), len(edges))
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


NODE = {
    "id": 5, "node_id": "a", "component_type": "ai_model", "label": None, "is_entry_point": False,
    "interrupt_before": False, "interrupt_after": False, "position_x": 0, "position_y": 0,
    "config": complete_config("ai_model", {"llm_credential_id": 99, "model_name": "m"}),
    "subworkflow_id": None, "code_block_id": None, "updated_at": "2026-03-02T09:05:00.031000",
    "schedule_job": None,
}  # fmt: skip
DETAIL = {
    "name": "Desk", "slug": "desk", "description": "d", "tags": None, "nodes": [NODE], "edges": [],
    "max_execution_seconds": 900,
}  # fmt: skip


async def test_a_fork_is_compiled_with_the_source_that_the_server_shows() -> None:
    """`mode` tells that it is one; nothing of the source is changed."""
    async with serving() as server, Client.open(server.target) as client:
        offer_models(server)
        server.answer("GET", "/workflows/desk/", 200, DETAIL)
        server.answer("POST", "/workflows/", 201, {"slug": "desk-fork", "id": 8})
        server.answer("POST", "/workflows/desk-fork/nodes/", 201, {})
        made = await create_workflow(client, "based_on: desk\npatches: []", model="demo-1")

    head, node = (body for method, _, body in server.asked if method == "POST")
    assert (made.slug, made.mode) == ("desk-fork", "forked")
    assert head["name"] == "Desk (fork)"
    assert (node["config"]["llm_credential_id"], node["config"]["model_name"]) == (4, "demo-1")


async def test_a_fork_of_nothing_stores_nothing() -> None:
    """The contract's words."""
    async with serving() as server, Client.open(server.target) as client:
        offer_models(server)
        with pytest.raises(DocumentError, match=r"^Source workflow 'gone' not found$"):
            await create_workflow(client, "based_on: gone\npatches: []")


async def test_a_document_of_another_server_needs_a_model_of_this_one() -> None:
    """An unknown credential is refused before anything is stored, with the way out."""
    async with serving() as server, Client.open(server.target) as client:
        offer_models(server)
        server.answer("GET", "/workflows/desk/", 200, DETAIL)
        exported = await export_workflow(client, "desk")
        with pytest.raises(DocumentError, match=r"credential 99, which this .*\n.*--model NAME"):
            await create_workflow(client, exported.text)

    assert not [one for one in server.asked if one[0] == "POST"]
    assert "max_execution_seconds" not in exported.text


async def test_an_export_says_why_it_could_not_be_imported() -> None:
    """An unfinished workflow can be kept, but not made again as it is."""
    agent = NODE | {"component_type": "agent", "config": complete_config("agent", {})}
    async with serving() as server, Client.open(server.target) as client:
        server.answer("GET", "/workflows/desk/", 200, DETAIL | {"nodes": [agent]})
        exported = await export_workflow(client, "desk")

    assert exported.errors == ("Node 'a' is missing required 'model' connection",)

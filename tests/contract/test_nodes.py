"""nodes.md over a real socket."""

from typing import Any

import pytest
from sqlalchemy import insert

from pipelit.store import Store, schema
from tests.kit.canvas import START, CanvasServer, canvas
from tests.kit.store import migrated, store, store_url

__all__ = ["canvas", "migrated", "store", "store_url"]

NODES = "/workflows/flow/nodes/"


async def add_credentials(store: Store) -> None:
    """Store an `llm` credential with id 1 and a `gateway` one with id 2."""
    common = {
        "detail": {"clear": {}, "secret": {}},
        "created_at": START,
        "updated_at": START,
    }
    rows = [{"name": kind, "credential_type": kind, **common} for kind in ("llm", "gateway")]
    await store.write(lambda conn: conn.execute(insert(schema.credentials), rows) and None)


async def test_a_created_node_is_shown_with_a_complete_config(canvas: CanvasServer) -> None:
    """Fields of other types are dropped, fractions rounded, the event has the object."""
    await canvas.workflow()
    await add_credentials(canvas.store)

    response = await canvas.call(
        "POST",
        NODES,
        {
            "component_type": "ai_model",
            "node_id": "model_main",
            "position_x": 320.6,
            "config": {
                "llm_credential_id": 1,
                "model_name": "gpt-4o-mini",
                "temperature": 0.2,
                "is_active": False,
                "llm_model_config_id": 5,
            },
        },
    )

    assert response.status_code == 201
    assert response.json() == {
        "id": 1,
        "node_id": "model_main",
        "label": None,
        "component_type": "ai_model",
        "is_entry_point": False,
        "interrupt_before": False,
        "interrupt_after": False,
        "position_x": 321,
        "position_y": 0,
        "config": {
            "system_prompt": "",
            "extra_config": {},
            "llm_credential_id": 1,
            "model_name": "gpt-4o-mini",
            "temperature": 0.2,
            "max_tokens": None,
            "frequency_penalty": None,
            "presence_penalty": None,
            "top_p": None,
            "timeout": None,
            "max_retries": None,
            "response_format": None,
            "llm_model_config_id": None,
            "credential_id": None,
            "is_active": True,
            "priority": 0,
            "trigger_config": {},
        },
        "subworkflow_id": None,
        "code_block_id": None,
        "updated_at": "2026-02-03T08:15:02",
        "schedule_job": None,
    }
    assert canvas.events == [("workflow:flow", "node_created", response.json())]


@pytest.mark.parametrize("body", [{}, {"node_id": None}])
async def test_a_node_without_an_id_gets_one(canvas: CanvasServer, body: dict[str, Any]) -> None:
    """The type and eight hexadecimal digits."""
    await canvas.workflow()

    node = await canvas.made(NODES, {"component_type": "code", **body})

    head, tail = node["node_id"].rsplit("_", 1)
    assert head == "code"
    assert len(bytes.fromhex(tail)) == 4


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "body.component_type: field required"),
        ({"component_type": "code", "node_id": "__end__"}, "body.node_id: is reserved"),
        (
            {"component_type": "code", "node_id": "-a"},
            "body.node_id: must match ^[A-Za-z0-9_][A-Za-z0-9_-]{0,254}$",
        ),
        ({"component_type": "code", "position_x": "1"}, "body.position_x: must be an integer"),
        ({"component_type": "code", "config": None}, "body.config: must not be null"),
        (
            {"component_type": "code", "config": {"max_tokens": 0}},
            "body.config.max_tokens: must be >= 1",
        ),
        (
            {"component_type": "code", "config": {"extra_config": []}},
            "body.config.extra_config: must be an object",
        ),
    ],
)
async def test_a_wrong_body_is_explained(
    canvas: CanvasServer, body: dict[str, Any], problem: str
) -> None:
    """Also a config is checked, whether its fields are kept or not."""
    await canvas.workflow()

    response = await canvas.call("POST", NODES, body)

    assert response.status_code == 422
    assert response.json() == {"detail": {"validation_errors": [problem]}}


async def test_an_unknown_type_is_answered_with_all_known_ones(canvas: CanvasServer) -> None:
    """In the order of the contract's table."""
    await canvas.workflow()

    response = await canvas.call("POST", NODES, {"component_type": "nonsense"})

    (problem,) = response.json()["detail"]["validation_errors"]
    assert problem.startswith("body.component_type: must be one of: agent, categorizer, router, ")
    assert problem.endswith(", trigger_error, trigger_chat, trigger_webhook")


async def test_an_id_is_unique_in_its_workflow(canvas: CanvasServer) -> None:
    """Another workflow may use it."""
    await canvas.workflow()
    await canvas.workflow("other")
    await canvas.node("a", "code")

    taken = await canvas.call("POST", NODES, {"component_type": "code", "node_id": "a"})
    other = await canvas.made("/workflows/other/nodes/", {"component_type": "code", "node_id": "a"})

    assert taken.status_code == 409
    assert taken.json() == {"detail": "Node with id 'a' already exists."}
    assert other["id"] > 1


async def test_links_must_lead_somewhere(canvas: CanvasServer) -> None:
    """Credentials and subworkflows are looked up, but only where the type keeps the link."""
    await canvas.workflow()
    hidden = await canvas.workflow("hidden", key="ada-key")
    await add_credentials(canvas.store)

    async def refusal(component_type: str, **more: object) -> tuple[int, object]:
        body = {"component_type": component_type, **more}
        response = await canvas.call("POST", NODES, body)
        return response.status_code, response.json().get("detail")

    assert await refusal("ai_model", config={"llm_credential_id": 9}) == (
        404,
        "Credential not found.",
    )
    assert await refusal("ai_model", config={"llm_credential_id": 2}) == (
        400,
        "Credential is not of type 'llm'.",
    )
    assert await refusal("trigger_telegram", config={"credential_id": 9}) == (
        404,
        "Credential not found.",
    )
    assert await refusal("workflow", subworkflow_id=hidden["id"]) == (404, "Workflow not found.")
    assert (await refusal("code", config={"credential_id": 9}))[0] == 201
    assert (await refusal("trigger_telegram", config={"credential_id": 2}))[0] == 201


async def test_a_full_workflow_takes_no_more_nodes(canvas: CanvasServer) -> None:
    """1000 nodes are the limit."""
    await canvas.workflow()
    row = {"workflow_id": 1, "component_type": "code", "config": {}, "updated_at": START}
    rows = [{**row, "node_id": f"n{number}"} for number in range(1000)]
    await canvas.store.write(lambda conn: conn.execute(insert(schema.nodes), rows) and None)

    response = await canvas.call("POST", NODES, {"component_type": "code"})

    assert response.status_code == 409
    assert response.json() == {"detail": "Workflow node limit reached."}


async def test_nodes_are_listed_and_found(canvas: CanvasServer) -> None:
    """A flat array in row order; an unknown one has its own 404."""
    await canvas.workflow()
    first = await canvas.node("b", "code")
    second = await canvas.node("a", "code")

    assert (await canvas.call("GET", NODES)).json() == [first, second]
    assert (await canvas.call("GET", f"{NODES}a/")).json() == second
    for method in ("GET", "PATCH", "DELETE"):
        response = await canvas.call(method, f"{NODES}nothing/", {})
        assert (response.status_code, response.json()) == (404, {"detail": "Node not found."})


async def test_a_node_names_the_model_it_uses(canvas: CanvasServer) -> None:
    """The lowest llm edge decides; its going hands over to the next; nothing is updated for it."""
    await canvas.workflow()
    agent = await canvas.node("agent_1", "agent")
    first = await canvas.node("m1", "ai_model")
    second = await canvas.node("m2", "ai_model")

    async def model() -> object:
        node = (await canvas.call("GET", f"{NODES}agent_1/")).json()
        assert node["updated_at"] == agent["updated_at"]
        listed = (await canvas.call("GET", NODES)).json()[0]
        assert listed == node
        return node["config"]["llm_model_config_id"]

    assert await model() is None
    edge = await canvas.edge("m1", "agent_1", edge_label="llm")
    await canvas.edge("m2", "agent_1", edge_label="llm")
    assert await model() == first["id"]
    await canvas.call("DELETE", f"/workflows/flow/edges/{edge['id']}/")
    assert await model() == second["id"]
    await canvas.call("DELETE", f"{NODES}m2/")
    assert await model() is None


async def test_nodes_of_a_public_workflow_are_read_only(canvas: CanvasServer) -> None:
    """Reading works, changing is 403, after 404; a private workflow is 404."""
    await canvas.workflow("flow", key="ada-key", is_public=True)
    await canvas.made(NODES, {"component_type": "code", "node_id": "a"}, key="ada-key")
    await canvas.workflow("secret", key="ada-key")

    assert (await canvas.call("GET", f"{NODES}a/")).status_code == 200
    for method in ("PATCH", "DELETE"):
        assert (await canvas.call(method, f"{NODES}a/", {})).status_code == 403
        assert (await canvas.call(method, f"{NODES}b/", {})).status_code == 404
    body = {"component_type": "code"}
    refused = await canvas.call("POST", NODES, body)
    hidden = await canvas.call("POST", "/workflows/secret/nodes/", body)

    assert refused.status_code == 403
    assert refused.json() == {"detail": "You do not have permission to modify this workflow."}
    assert (hidden.status_code, hidden.json()) == (404, {"detail": "Workflow not found."})

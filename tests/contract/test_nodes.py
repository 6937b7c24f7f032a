"""nodes.md over a real socket."""

from typing import Any

import pytest
from sqlalchemy import insert, select

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


async def add_schedule(store: Store, node_id: str) -> None:
    """Store a schedule of a node of the first workflow."""
    values = {"id": "s", "name": "s", "workflow_id": 1, "trigger_node_id": node_id}
    times = {"interval_seconds": 5, "next_run_at": START, "created_at": START, "updated_at": START}
    await store.write(lambda conn: conn.execute(insert(schema.schedules), values | times) and None)


async def scheduled_nodes(store: Store) -> list[str | None]:
    """Return whose schedules are left."""
    chosen = select(schema.schedules.c.trigger_node_id)
    return await store.read(lambda conn: list(conn.scalars(chosen)))


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


async def test_a_config_is_merged_key_by_key(canvas: CanvasServer) -> None:
    """Keys that are absent stay; extra_config is replaced whole."""
    await canvas.workflow()
    created = await canvas.node(
        "agent_1",
        "agent",
        config={"system_prompt": "Be brief.", "extra_config": {"context_window": 8000}},
    )
    canvas.told()

    response = await canvas.call(
        "PATCH", f"{NODES}agent_1/", {"config": {"extra_config": {"conversation_memory": True}}}
    )

    node = response.json()
    assert node["config"]["system_prompt"] == "Be brief."
    assert node["config"]["extra_config"] == {"conversation_memory": True}
    assert node["updated_at"] > created["updated_at"]
    assert canvas.events == [("workflow:flow", "node_updated", node)]


async def test_an_empty_patch_changes_and_tells_nothing(canvas: CanvasServer) -> None:
    """`{}` is valid and idle, `config: null` is not valid."""
    await canvas.workflow()
    created = await canvas.node("a", "code")
    canvas.told()

    idle = await canvas.call("PATCH", f"{NODES}a/", {})
    null = await canvas.call("PATCH", f"{NODES}a/", {"config": None, "node_id": None})

    assert (idle.status_code, idle.json()) == (200, created)
    assert canvas.told() == []
    assert null.json()["detail"]["validation_errors"] == [
        "body.node_id: must not be null",
        "body.config: must not be null",
    ]


async def test_a_confirmation_always_interrupts_before(canvas: CanvasServer) -> None:
    """Whatever is sent; other types do as they are told."""
    await canvas.workflow()
    asked = await canvas.node("ask", "human_confirmation", interrupt_before=False)
    await canvas.node("a", "code")

    patched = await canvas.call("PATCH", f"{NODES}ask/", {"interrupt_before": False})
    other = await canvas.call("PATCH", f"{NODES}a/", {"interrupt_before": True, "label": "A"})
    became = await canvas.call("PATCH", f"{NODES}a/", {"component_type": "human_confirmation"})

    assert asked["interrupt_before"] is True
    assert patched.json()["interrupt_before"] is True
    assert other.json()["interrupt_before"] is True
    assert (became.json()["interrupt_before"], became.json()["label"]) == (True, "A")


async def test_edges_and_schedules_follow_a_new_id(canvas: CanvasServer) -> None:
    """One edge_updated per changed edge, then node_updated with the previous id."""
    await canvas.workflow()
    await canvas.node("tick", "trigger_schedule")
    await canvas.node("s", "switch")
    await canvas.node("a", "code")
    await canvas.edge("tick", "s")
    await canvas.edge("s", "a", edge_type="conditional", condition_value="x")
    await canvas.edge(
        *("s", "a"),
        edge_type="conditional",
        condition_value="y",
        condition_mapping={"z": "a", "w": "__end__"},
    )
    await add_schedule(canvas.store, "tick")
    canvas.told()

    await canvas.call("PATCH", f"{NODES}a/", {"node_id": "b"})
    await canvas.call("PATCH", f"{NODES}tick/", {"node_id": "tock"})

    edges = (await canvas.call("GET", "/workflows/flow/edges/")).json()
    events = [(kind, data.get("previous_node_id")) for _, kind, data in canvas.events]
    assert [(e["source_node_id"], e["target_node_id"]) for e in edges] == [
        ("tock", "s"),
        ("s", "b"),
        ("s", "b"),
    ]
    assert edges[2]["condition_mapping"] == {"z": "b", "w": "__end__"}
    assert events == [
        ("edge_updated", None),
        ("edge_updated", None),
        ("node_updated", "a"),
        ("edge_updated", None),
        ("node_updated", "tick"),
    ]
    assert await scheduled_nodes(canvas.store) == ["tock"]


async def test_a_taken_id_refuses_the_rename_whole(canvas: CanvasServer) -> None:
    """409, and nothing has moved; its own id is an ordinary update."""
    await canvas.workflow()
    await canvas.node("a", "code")
    await canvas.node("b", "code")
    await canvas.edge("a", "b")
    canvas.told()

    taken = await canvas.call("PATCH", f"{NODES}a/", {"node_id": "b", "label": "new"})
    same = await canvas.call("PATCH", f"{NODES}a/", {"node_id": "a"})

    assert taken.status_code == 409
    assert taken.json() == {"detail": "Node with id 'b' already exists."}
    assert (same.status_code, same.json()["label"]) == (200, None)
    assert "previous_node_id" not in canvas.events[0][2]


async def test_a_new_type_must_fit_the_edges(canvas: CanvasServer) -> None:
    """A violation changes nothing; a fitting type resets what it does not keep."""
    await canvas.workflow()
    await canvas.node("tick", "trigger_schedule", config={"priority": 4, "system_prompt": "x"})
    await canvas.node("agent_1", "agent")
    await canvas.edge("tick", "agent_1")
    await add_schedule(canvas.store, "tick")

    refused = await canvas.call("PATCH", f"{NODES}tick/", {"component_type": "filter"})
    changed = await canvas.call("PATCH", f"{NODES}tick/", {"component_type": "code"})

    assert refused.status_code == 422
    assert refused.json()["detail"]["validation_errors"] == [
        "Source type 'filter' output 'filtered' (array) "
        "is not compatible with target 'agent' input 'messages' (messages)"
    ]
    config = changed.json()["config"]
    assert (changed.json()["component_type"], config["priority"]) == ("code", 0)
    assert config["system_prompt"] == "x"
    assert await scheduled_nodes(canvas.store) == []


async def test_a_deleted_node_takes_its_edges_along(canvas: CanvasServer) -> None:
    """edge_deleted for each, then node_deleted; a trigger's schedules go too."""
    await canvas.workflow()
    await canvas.node("tick", "trigger_schedule")
    await canvas.node("a", "code")
    await canvas.node("b", "code")
    await canvas.edge("tick", "a")
    await canvas.edge("a", "b")
    await add_schedule(canvas.store, "tick")
    canvas.told()

    response = await canvas.call("DELETE", f"{NODES}a/")
    await canvas.call("DELETE", f"{NODES}tick/")

    assert (response.status_code, response.content) == (204, b"")
    assert [(kind, data) for _, kind, data in canvas.events] == [
        ("edge_deleted", {"id": 1}),
        ("edge_deleted", {"id": 2}),
        ("node_deleted", {"node_id": "a"}),
        ("node_deleted", {"node_id": "tick"}),
    ]
    assert [n["node_id"] for n in (await canvas.call("GET", NODES)).json()] == ["b"]
    assert await scheduled_nodes(canvas.store) == []


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


async def test_a_change_makes_a_new_version_of_the_workflow(canvas: CanvasServer) -> None:
    """Compiled plans are keyed by it; `updated_at` of the workflow stays."""
    flow = await canvas.workflow()
    version = select(schema.workflows.c.version)

    await canvas.node("a", "code")
    await canvas.call("PATCH", f"{NODES}a/", {"label": "A"})
    await canvas.call("DELETE", f"{NODES}a/")

    assert await canvas.store.read(lambda conn: conn.scalar(version)) == 3
    detail = (await canvas.call("GET", "/workflows/flow/")).json()
    assert detail["updated_at"] == flow["updated_at"]

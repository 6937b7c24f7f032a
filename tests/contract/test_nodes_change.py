"""nodes.md "PATCH rules" and "DELETE effects" over a real socket."""

from sqlalchemy import insert, select

from pipelit.store import Store, schema
from tests.kit.canvas import START, CanvasServer, canvas
from tests.kit.store import migrated, store, store_url

__all__ = ["canvas", "migrated", "store", "store_url"]

NODES = "/workflows/flow/nodes/"


async def add_schedule(store: Store, node_id: str) -> None:
    """Store a schedule of a node of the first workflow."""
    values = {"id": "s", "name": "s", "workflow_id": 1, "trigger_node_id": node_id}
    times = {"interval_seconds": 5, "next_run_at": START, "created_at": START, "updated_at": START}
    await store.write(lambda conn: conn.execute(insert(schema.schedules), values | times) and None)


async def scheduled_nodes(store: Store) -> list[str | None]:
    """Return whose schedules are left."""
    chosen = select(schema.schedules.c.trigger_node_id)
    return await store.read(lambda conn: list(conn.scalars(chosen)))


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

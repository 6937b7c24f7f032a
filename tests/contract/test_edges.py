"""edges.md over a real socket. The rules themselves: tests/engine/test_edges.py."""

from typing import Any

import pytest
import trio
from sqlalchemy import insert

from pipelit.store import schema
from tests.kit.canvas import CanvasServer, canvas
from tests.kit.store import migrated, store, store_url

__all__ = ["canvas", "migrated", "store", "store_url"]

EDGES = "/workflows/flow/edges/"


async def draw(canvas: CanvasServer) -> None:
    """Make a workflow with a switch, a filter, an agent and a model."""
    await canvas.workflow()
    await canvas.node("route_1", "switch")
    await canvas.node("filter_1", "filter")
    await canvas.node("agent_1", "agent")
    await canvas.node("model_main", "ai_model")
    canvas.told()


async def test_a_created_edge_is_shown_with_every_default(canvas: CanvasServer) -> None:
    """The event carries the same object."""
    await draw(canvas)

    edge = await canvas.edge("model_main", "agent_1", edge_label="llm")

    assert edge == {
        "id": 1,
        "source_node_id": "model_main",
        "target_node_id": "agent_1",
        "edge_type": "direct",
        "edge_label": "llm",
        "condition_mapping": None,
        "condition_value": "",
        "priority": 0,
    }
    assert canvas.events == [("workflow:flow", "edge_created", edge)]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (
            {"source_node_id": "route_1", "target_node_id": "agent_1", "edge_type": "conditional"},
            "Conditional edges require a non-empty condition_value",
        ),
        (
            {"source_node_id": "filter_1", "target_node_id": "agent_1"},
            {
                "validation_errors": [
                    "Source type 'filter' output 'filtered' (array) "
                    "is not compatible with target 'agent' input 'messages' (messages)"
                ]
            },
        ),
        (
            {"source_node_id": "x", "target_node_id": "y"},
            {
                "validation_errors": [
                    "Edge references unknown source node 'x'",
                    "Edge references unknown target node 'y'",
                ]
            },
        ),
        (
            {"source_node_id": "agent_1"},
            {"validation_errors": ["Edge requires a non-empty target_node_id"]},
        ),
        (
            {"edge_type": "other", "edge_label": "x", "condition_value": "c" * 101},
            {
                "validation_errors": [
                    "body.source_node_id: field required",
                    "body.edge_type: must be one of: direct, conditional",
                    "body.edge_label: must be one of: , llm, tool, memory, output_parser, "
                    "loop_body, loop_return, skill",
                    "body.condition_value: must be at most 100 characters",
                ]
            },
        ),
    ],
)
async def test_an_edge_that_may_not_stand_is_refused(
    canvas: CanvasServer, body: dict[str, Any], detail: object
) -> None:
    """Each form of refusal as the contract writes it, and nothing is told."""
    await draw(canvas)

    response = await canvas.call("POST", EDGES, body)

    assert response.status_code == 422
    assert sorted_problems(response.json()["detail"]) == sorted_problems(detail)
    assert canvas.told() == []


def sorted_problems(detail: Any) -> Any:
    """Schema problems come in no promised order."""
    return sorted(detail["validation_errors"]) if isinstance(detail, dict) else detail


async def test_the_same_edge_twice_is_a_conflict(canvas: CanvasServer) -> None:
    """Also when both come at once; another value is another edge."""
    await draw(canvas)
    statuses = []

    async def create() -> None:
        body = {"source_node_id": "agent_1", "target_node_id": "route_1"}
        response = await canvas.call("POST", EDGES, body)
        statuses.append((response.status_code, response.json().get("detail")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create)
        nursery.start_soon(create)
    conditional = {"edge_type": "conditional", "condition_value": "a"}
    await canvas.edge("route_1", "agent_1", **conditional)
    await canvas.edge("route_1", "agent_1", **conditional | {"condition_value": "b"})

    assert sorted(statuses, key=str) == [(201, None), (409, "Edge already exists.")]


async def test_a_full_workflow_takes_no_more_edges(canvas: CanvasServer) -> None:
    """5000 edges are the limit."""
    await draw(canvas)
    row = {"workflow_id": 1, "source_node_id": "x", "target_node_id": "y"}
    rows = [{**row, "condition_value": str(number)} for number in range(5000)]
    await canvas.store.write(lambda conn: conn.execute(insert(schema.edges), rows) and None)

    response = await canvas.call(
        "POST", EDGES, {"source_node_id": "agent_1", "target_node_id": "route_1"}
    )

    assert response.status_code == 409
    assert response.json() == {"detail": "Workflow edge limit reached."}


async def test_edges_are_listed_and_found_in_their_workflow_only(canvas: CanvasServer) -> None:
    """An edge of another workflow is not there."""
    await draw(canvas)
    await canvas.workflow("other")
    first = await canvas.edge("agent_1", "route_1")
    second = await canvas.edge("agent_1", "__end__", priority=-1)

    assert (await canvas.call("GET", EDGES)).json() == [first, second]
    assert (await canvas.call("GET", f"{EDGES}2/")).json() == second
    for path in (f"{EDGES}9/", "/workflows/other/edges/1/"):
        for method in ("GET", "PATCH", "DELETE"):
            response = await canvas.call(method, path, {})
            assert (response.status_code, response.json()) == (404, {"detail": "Edge not found."})
    bad = await canvas.call("GET", f"{EDGES}x/")
    assert bad.json()["detail"]["validation_errors"] == ["path.edge_id: must be an integer"]


async def test_a_patch_is_judged_by_the_resulting_edge(canvas: CanvasServer) -> None:
    """The same rules, the same refusals; the edge itself does not stand in its own way."""
    await draw(canvas)
    edge = await canvas.edge("agent_1", "route_1", condition_mapping={"a": "b"})
    await canvas.edge("agent_1", "__end__")
    canvas.told()

    changed = await canvas.call("PATCH", f"{EDGES}1/", {"priority": 5, "condition_mapping": None})
    refused = await canvas.call("PATCH", f"{EDGES}1/", {"edge_type": "conditional"})
    twice = await canvas.call("PATCH", f"{EDGES}1/", {"target_node_id": "__end__"})
    null = await canvas.call("PATCH", f"{EDGES}1/", {"priority": None})
    idle = await canvas.call("PATCH", f"{EDGES}1/", {})

    expected = {**edge, "priority": 5, "condition_mapping": None}
    assert (changed.status_code, changed.json()) == (200, expected)
    assert refused.json() == {"detail": "Conditional edges require a non-empty condition_value"}
    assert (twice.status_code, twice.json()) == (409, {"detail": "Edge already exists."})
    assert null.status_code == 422
    assert idle.json() == expected
    assert canvas.events == [("workflow:flow", "edge_updated", expected)]


async def test_a_deleted_edge_is_gone_and_told(canvas: CanvasServer) -> None:
    """204 without a body; the second time 404."""
    await draw(canvas)
    await canvas.edge("agent_1", "route_1")
    canvas.told()

    response = await canvas.call("DELETE", f"{EDGES}1/")

    assert (response.status_code, response.content) == (204, b"")
    assert canvas.events == [("workflow:flow", "edge_deleted", {"id": 1})]
    assert (await canvas.call("DELETE", f"{EDGES}1/")).status_code == 404


async def test_edges_of_a_public_workflow_are_read_only(canvas: CanvasServer) -> None:
    """Rights come before the rules."""
    await canvas.workflow("flow", key="ada-key", is_public=True)

    refused = await canvas.call("POST", EDGES, {"source_node_id": "x"})

    assert (await canvas.call("GET", EDGES)).json() == []
    assert refused.status_code == 403
    for method in ("PATCH", "DELETE"):
        assert (await canvas.call(method, f"{EDGES}1/", {})).status_code == 404


async def test_events_come_in_the_order_of_the_changes(canvas: CanvasServer) -> None:
    """Many changes at once: what was committed first is told first."""
    await draw(canvas)

    async def create(value: str) -> None:
        conditional = {"edge_type": "conditional", "condition_value": value}
        await canvas.edge("route_1", "agent_1", **conditional)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(create, str(number))

    assert [data["id"] for _, _, data in canvas.events] == list(range(1, 21))

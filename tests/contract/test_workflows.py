"""workflows.md over a real socket."""

from datetime import timedelta
from typing import Any

import pytest
import trio
from sqlalchemy import insert, select

from pipelit.store import schema
from tests.kit.canvas import START, CanvasServer, canvas
from tests.kit.store import migrated, store, store_url

__all__ = ["canvas", "migrated", "store", "store_url"]

NOT_FOUND = {"detail": "Workflow not found."}
NOT_YOURS = {"detail": "You do not have permission to modify this workflow."}


async def test_a_created_workflow_is_shown_with_every_default(canvas: CanvasServer) -> None:
    """The body is the contract's object, whole; nothing is published for it."""
    response = await canvas.call("POST", "/workflows/", {"name": "Flow", "slug": "flow", "id": 77})

    assert response.status_code == 201
    assert response.json() == {
        "id": 1,
        "name": "Flow",
        "slug": "flow",
        "description": "",
        "is_active": True,
        "is_public": False,
        "is_default": False,
        "tags": None,
        "error_handler_workflow_id": None,
        "max_execution_seconds": 900,
        "input_schema": None,
        "output_schema": None,
        "node_count": 0,
        "edge_count": 0,
        "trigger_count": 0,
        "created_at": "2026-02-03T08:15:01",
        "updated_at": "2026-02-03T08:15:01",
    }
    assert canvas.told() == []


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, ["body.name: field required", "body.slug: field required"]),
        ({"name": " ", "slug": "a"}, ["body.name: must not be blank"]),
        ({"name": "a", "slug": "A b"}, ["body.slug: must match ^[a-z0-9][a-z0-9_-]{0,254}$"]),
        ({"name": "a", "slug": "node-types"}, ["body.slug: is reserved"]),
        (
            {"name": "a", "slug": "a", "max_execution_seconds": 0, "description": None},
            ["body.description: must not be null", "body.max_execution_seconds: must be >= 1"],
        ),
        (
            {"name": "a", "slug": "a", "tags": ["x", ""]},
            ["body.tags[1]: must be at least 1 characters"],
        ),
    ],
)
async def test_a_wrong_body_is_explained(
    canvas: CanvasServer, body: dict[str, Any], problems: list[str]
) -> None:
    """All problems come together in the contract's words."""
    response = await canvas.call("POST", "/workflows/", body)

    assert response.status_code == 422
    assert response.json() == {"detail": {"validation_errors": problems}}


async def test_a_slug_is_unique_among_the_living_of_all_owners(canvas: CanvasServer) -> None:
    """Another owner's slug is taken too; a deleted workflow frees its own at once."""
    await canvas.workflow("flow", key="ada-key")

    taken = await canvas.call("POST", "/workflows/", {"name": "x", "slug": "flow"})
    deleted = await canvas.call("DELETE", "/workflows/flow/", key="ada-key")
    free = await canvas.workflow("flow")

    assert taken.status_code == 409
    assert taken.json() == {"detail": "Workflow with slug 'flow' already exists."}
    assert deleted.status_code == 204
    assert free["id"] > 1


async def test_of_two_creates_at_once_one_wins(canvas: CanvasServer) -> None:
    """One slug, two requests: one 201, one 409."""
    statuses = []

    async def create() -> None:
        response = await canvas.call("POST", "/workflows/", {"name": "x", "slug": "flow"})
        statuses.append(response.status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(create)

    assert sorted(statuses) == [201, 409, 409, 409]


async def test_people_list_their_own_and_admins_all(canvas: CanvasServer) -> None:
    """A public workflow of somebody else is readable by slug, but not listed."""
    await canvas.workflow("hers", key="ada-key", is_public=True)
    await canvas.workflow("his")

    his = (await canvas.call("GET", "/workflows/")).json()
    hers = (await canvas.call("GET", "/workflows/?limit=1&offset=1", key="ada-key")).json()

    assert ([w["slug"] for w in his["items"]], his["total"]) == (["his"], 1)
    assert ([w["slug"] for w in hers["items"]], hers["total"]) == (["his"], 2)


async def test_what_is_invisible_is_not_there_and_what_is_public_is_read_only(
    canvas: CanvasServer,
) -> None:
    """Private: 404 like nothing at all. Public: readable, 403 on change."""
    await canvas.workflow("secret", key="ada-key")
    await canvas.workflow("shown", key="ada-key", is_public=True)

    for slug in ("secret", "nothing"):
        for method in ("GET", "PATCH", "DELETE"):
            response = await canvas.call(method, f"/workflows/{slug}/", {})
            assert (response.status_code, response.json()) == (404, NOT_FOUND)
    assert (await canvas.call("GET", "/workflows/shown/")).status_code == 200
    assert (await canvas.call("POST", "/workflows/shown/validate/")).status_code == 200
    for method in ("PATCH", "DELETE"):
        response = await canvas.call(method, "/workflows/shown/", {})
        assert (response.status_code, response.json()) == (403, NOT_YOURS)


async def test_a_detail_holds_nodes_and_edges(canvas: CanvasServer) -> None:
    """Counts and lists tell the same story, in row order."""
    await canvas.workflow()
    await canvas.node("chat_in", "trigger_chat")
    await canvas.node("say", "reply_chat")
    await canvas.edge("chat_in", "say")

    detail = (await canvas.call("GET", "/workflows/flow/")).json()

    assert [node["node_id"] for node in detail["nodes"]] == ["chat_in", "say"]
    assert [edge["id"] for edge in detail["edges"]] == [1]
    assert (detail["node_count"], detail["edge_count"], detail["trigger_count"]) == (2, 1, 1)
    assert detail["updated_at"] == detail["created_at"]


async def test_a_patch_changes_what_it_names_and_is_told(canvas: CanvasServer) -> None:
    """Other fields stay; null limits follow the global setting; the event has the object."""
    await canvas.workflow(max_execution_seconds=60, tags=["a"])

    response = await canvas.call(
        "PATCH", "/workflows/flow/", {"name": "New", "max_execution_seconds": None}
    )

    changed = response.json()
    assert (changed["name"], changed["tags"]) == ("New", ["a"])
    assert changed["max_execution_seconds"] == 900
    assert changed["updated_at"] > changed["created_at"]
    assert canvas.events == [("workflow:flow", "workflow_updated", changed)]


async def test_an_empty_patch_changes_and_tells_nothing(canvas: CanvasServer) -> None:
    """Unknown fields count as nothing."""
    created = await canvas.workflow()

    for body in ({}, {"owner": 7}):
        response = await canvas.call("PATCH", "/workflows/flow/", body)
        assert (response.status_code, response.json()) == (200, created)
    assert canvas.told() == []


async def test_a_new_slug_is_told_on_both_channels(canvas: CanvasServer) -> None:
    """The old name is gone, and free."""
    await canvas.workflow()

    await canvas.call("PATCH", "/workflows/flow/", {"slug": "river"})

    assert canvas.told() == [
        ("workflow:flow", "workflow_updated"),
        ("workflow:river", "workflow_updated"),
    ]
    assert (await canvas.call("GET", "/workflows/flow/")).status_code == 404
    assert (await canvas.workflow("flow"))["id"] > 1
    taken = await canvas.call("PATCH", "/workflows/river/", {"slug": "flow"})
    assert (taken.status_code, taken.json()["detail"]) == (
        409,
        "Workflow with slug 'flow' already exists.",
    )


async def test_only_one_workflow_of_an_owner_is_the_default(canvas: CanvasServer) -> None:
    """Setting it clears it on the owner's others, not on anybody else's."""
    await canvas.workflow("hers", key="ada-key", is_default=True)
    await canvas.workflow("first", is_default=True)
    await canvas.workflow("second", is_default=True)
    await canvas.workflow("third")
    await canvas.call("PATCH", "/workflows/third/", {"is_default": True}, key="ada-key")

    listed = (await canvas.call("GET", "/workflows/", key="ada-key")).json()["items"]

    assert {w["slug"] for w in listed if w["is_default"]} == {"hers", "third"}


async def test_an_error_handler_must_be_visible_and_another(canvas: CanvasServer) -> None:
    """Unknown and invisible are 404, itself is 400."""
    own = await canvas.workflow()
    hidden = await canvas.workflow("hidden", key="ada-key")
    helper = await canvas.workflow("helper")
    path = "/workflows/flow/"

    for missing in (999, hidden["id"]):
        body = {"error_handler_workflow_id": missing}
        response = await canvas.call("PATCH", path, body)
        assert (response.status_code, response.json()) == (404, NOT_FOUND)
        created = await canvas.call("POST", "/workflows/", {"name": "x", "slug": "x", **body})
        assert (created.status_code, created.json()) == (404, NOT_FOUND)
    itself = await canvas.call("PATCH", path, {"error_handler_workflow_id": own["id"]})
    assert itself.status_code == 400
    assert itself.json() == {"detail": "A workflow cannot be its own error handler."}
    linked = await canvas.call("PATCH", path, {"error_handler_workflow_id": helper["id"]})
    assert linked.json()["error_handler_workflow_id"] == helper["id"]


async def test_deleting_cancels_forgets_and_tells(canvas: CanvasServer) -> None:
    """Executions are cancelled, references become null, schedules go, everybody hears it."""
    gone = await canvas.workflow("gone")
    await canvas.workflow(error_handler_workflow_id=gone["id"])
    await canvas.node("sub", "workflow", subworkflow_id=gone["id"])
    await canvas.store.write(
        lambda conn: (
            conn.execute(
                insert(schema.schedules).values(
                    id="s",
                    name="s",
                    workflow_id=gone["id"],
                    interval_seconds=5,
                    next_run_at=START,
                    created_at=START,
                    updated_at=START,
                )
            )
            and None
        )
    )
    canvas.told()

    response = await canvas.call("DELETE", "/workflows/gone/")

    detail = (await canvas.call("GET", "/workflows/flow/")).json()
    left = await canvas.store.read(lambda conn: conn.execute(select(schema.schedules)).all())
    assert (response.status_code, response.content) == (204, b"")
    assert set(canvas.executions.cancelled) == {gone["id"]}
    assert detail["error_handler_workflow_id"] is None
    assert detail["nodes"][0]["subworkflow_id"] is None
    assert left == []
    assert canvas.events == [
        ("workflow:gone", "workflow_deleted", {"id": gone["id"], "slug": "gone"})
    ]
    assert (await canvas.call("DELETE", "/workflows/gone/")).status_code == 404


async def test_a_late_execution_that_hangs_does_not_hold_a_deletion(
    canvas: CanvasServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow is gone already; the execution is being stopped."""
    monkeypatch.setattr("pipelit.services.workflows.SWEEP_PATIENCE", 0.05)
    canvas.executions.late_one_hangs = True
    await canvas.workflow("gone")

    with trio.fail_after(10):
        response = await canvas.call("DELETE", "/workflows/gone/")

    assert response.status_code == 204
    assert len(canvas.executions.cancelled) == 2


async def test_a_batch_skips_what_it_may_not_delete(canvas: CanvasServer) -> None:
    """Unknown, foreign and repeated slugs are no problem; over 1000 are."""
    await canvas.workflow("hers", key="ada-key", is_public=True)
    await canvas.workflow("a")
    await canvas.workflow("b")

    response = await canvas.call(
        "POST", "/workflows/batch-delete/", {"slugs": ["a", "b", "a", "hers", "nothing"]}
    )
    nothing = await canvas.call("POST", "/workflows/batch-delete/", {"slugs": []})
    over = await canvas.call("POST", "/workflows/batch-delete/", {"slugs": ["x"] * 1001})

    assert (response.status_code, nothing.status_code, over.status_code) == (204, 204, 422)
    assert canvas.told() == [("workflow:a", "workflow_deleted"), ("workflow:b", "workflow_deleted")]
    assert (await canvas.call("GET", "/workflows/")).json()["total"] == 0
    assert (await canvas.call("GET", "/workflows/hers/")).status_code == 200


async def test_validation_answers_with_what_it_found(canvas: CanvasServer) -> None:
    """An empty workflow is valid; a lone agent misses its model."""
    await canvas.workflow()
    empty = await canvas.call("POST", "/workflows/flow/validate/")
    await canvas.node("agent_1", "agent")

    lone = await canvas.call("POST", "/workflows/flow/validate/")

    assert empty.json() == {"valid": True, "errors": [], "warnings": []}
    assert lone.json() == {
        "valid": False,
        "errors": ["Node 'agent_1' is missing required 'model' connection"],
        "warnings": ["Node 'agent_1' is not reachable from any trigger"],
    }


async def test_node_types_describe_48_types(canvas: CanvasServer) -> None:
    """A literal path wins over a slug; one entry has every published field."""
    types = (await canvas.call("GET", "/workflows/node-types")).json()

    assert len(types) == 48
    assert types["trigger_chat"]["color"] == "#f97316"
    assert types["agent"]["sub_inputs"][0] == {
        "name": "model",
        "data_type": "llm",
        "required": True,
        "description": "",
        "default": None,
        "port_schema": None,
    }


async def test_a_definition_is_checked_without_being_stored(canvas: CanvasServer) -> None:
    """The published example; a broken document is a result; an empty text is none."""
    path = "/workflows/validate-dsl/"
    text = "name: ping\ntrigger: chat\nsteps:\n  - id: say\n    type: reply_chat\n    message: pong"

    good = await canvas.call("POST", path, {"yaml_str": text})
    broken = await canvas.call("POST", path, {"yaml_str": "name: x\nsteps: []"})
    empty = await canvas.call("POST", path, {"yaml_str": ""})

    assert (good.status_code, good.json()) == (
        200,
        {"valid": True, "errors": [], "warnings": [], "node_count": 2, "edge_count": 1},
    )
    assert (broken.status_code, broken.json()) == (
        200,
        {
            "valid": False,
            "errors": ["Parse error: `steps` must be a non-empty list"],
            "warnings": [],
            "node_count": 0,
            "edge_count": 0,
        },
    )
    assert empty.status_code == 422
    assert (await canvas.call("GET", "/workflows/")).json()["total"] == 0


async def test_a_model_spec_finds_a_credential_without_asking_its_provider(
    canvas: CanvasServer,
) -> None:
    """An unknown model list is a warning that names nothing secret."""
    common = {"created_at": START, "updated_at": START}
    rows = [
        {
            "name": "g",
            "credential_type": "gateway",
            "detail": {"clear": {}, "secret": {}},
            **common,
        },
        {"name": "l", "credential_type": "llm", "detail": {"clear": {}, "secret": {}}, **common},
    ]
    await canvas.store.write(lambda conn: conn.execute(insert(schema.credentials), rows) and None)
    text = "name: x\nmodel: gpt-4o\nsteps: [{type: agent}]"

    response = await canvas.call("POST", "/workflows/validate-dsl/", {"yaml_str": text})

    assert response.json() == {
        "valid": True,
        "errors": [],
        "warnings": ["The models of credential 2 are not known"],
        "node_count": 3,
        "edge_count": 2,
    }


async def test_a_known_model_list_is_used_until_its_credential_changes(
    canvas: CanvasServer,
) -> None:
    """The shortest model that fits; no warning; a list of before the change is void."""
    common = {"created_at": START, "updated_at": START}
    detail = {"clear": {}, "secret": {}}
    row = {"name": "l", "credential_type": "llm", "detail": detail, **common}
    await canvas.store.write(lambda conn: conn.execute(insert(schema.credentials), row) and None)
    body = {"yaml_str": "name: x\nmodel: {discover: true}\nsteps: [{type: agent}]"}

    canvas.model_lists.remember(1, START, ["gpt-4o", "gpt-4o-mini"])
    known = await canvas.call("POST", "/workflows/validate-dsl/", body)
    canvas.model_lists.remember(1, START - timedelta(1), ["gpt-4o"])
    void = await canvas.call("POST", "/workflows/validate-dsl/", body)

    assert (known.json()["valid"], known.json()["warnings"]) == (True, [])
    assert void.json()["errors"] == [
        "Model resolution error: No scoreable models found across available credentials"
    ]


async def test_a_fork_is_checked_with_the_workflow_it_is_based_on(canvas: CanvasServer) -> None:
    """Whoever may not see the source is told what is told when it is missing."""
    await canvas.workflow(key="ada-key")
    body = {"yaml_str": "based_on: flow\npatches: [{action: add_step, step: {type: wait}}]"}
    path = "/workflows/validate-dsl/"

    owner = await canvas.call("POST", path, body, key="ada-key")
    stranger = await canvas.call("POST", path, body)
    await canvas.call("PATCH", "/workflows/flow/", {"is_public": True}, key="ada-key")
    reader = await canvas.call("POST", path, body)

    checked = {
        "valid": True,
        "errors": [],
        "warnings": ["Node 'wait_1' is not reachable from any trigger"],
        "node_count": 0,
        "edge_count": 0,
    }
    assert owner.json() == checked
    assert stranger.json() == checked | {
        "valid": False, "errors": ["Source workflow 'flow' not found"], "warnings": [],
    }  # fmt: skip
    assert reader.json() == checked

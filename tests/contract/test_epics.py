"""epics.md over a real socket: the object, the list, who may."""

from typing import Any

import pytest
from sqlalchemy import insert

from pipelit.store import schema
from tests.kit.canvas import START
from tests.kit.store import migrated, store, store_url
from tests.kit.work import WorkServer, work

__all__ = ["migrated", "store", "store_url", "work"]

NOT_FOUND = {"detail": "Epic not found."}
UNKNOWN = "/epics/ep-000000000000/"


async def test_a_created_epic_is_shown_with_every_default(work: WorkServer) -> None:
    """The body is the contract's object, whole; server-owned fields in the request are ignored."""
    body = {"title": " E ", "id": "ep-1", "status": "active", "spent_tokens": 5}

    response = await work.call("POST", "/epics/", body)

    assert response.status_code == 201
    epic = response.json()
    assert epic == {
        "id": epic["id"],
        "title": " E ",
        "description": "",
        "tags": [],
        "created_by_node_id": None,
        "workflow_id": None,
        "user_profile_id": 2,
        "status": "planning",
        "priority": 2,
        "budget_tokens": None,
        "budget_usd": None,
        "spent_tokens": 0,
        "spent_usd": 0.0,
        "agent_overhead_tokens": 0,
        "agent_overhead_usd": 0.0,
        "total_tasks": 0,
        "completed_tasks": 0,
        "failed_tasks": 0,
        "created_at": "2026-02-03T08:15:01",
        "updated_at": "2026-02-03T08:15:01",
        "completed_at": None,
        "result_summary": None,
    }
    assert epic["id"].startswith("ep-")
    assert len(epic["id"]) == 15
    assert work.told() == [(f"epic:{epic['id']}", "epic_created", epic)]
    assert await work.again(epic) == epic


async def test_every_field_of_create_is_kept(work: WorkServer) -> None:
    """Money keeps six decimals; a workflow that the caller may read may be named."""
    await work.store.write(_workflows)
    sent = {
        "title": "Migrate billing",
        "description": "All of it.",
        "tags": ["billing", "q1"],
        "workflow_id": 1,
        "priority": 1,
        "budget_tokens": 0,
        "budget_usd": 12.5000004,
    }

    epic = await work.epic(**sent)

    assert sent | {"budget_usd": 12.5} == {name: epic[name] for name in sent}


@pytest.mark.parametrize("workflow_id", [2, 3, 99])
async def test_a_workflow_must_be_visible(work: WorkServer, workflow_id: int) -> None:
    """Somebody else's private one, a deleted one and none at all are the same."""
    await work.store.write(_workflows)

    response = await work.call("POST", "/epics/", {"title": "E", "workflow_id": workflow_id})

    assert response.status_code == 404
    assert response.json() == {"detail": "Workflow not found."}
    assert (await work.get("/epics/"))["total"] == 0
    assert work.told() == []


def _workflows(conn: Any) -> None:
    """1 public, 2 private, 3 deleted; all Ada's."""
    for number, public, deleted in ((1, True, None), (2, False, None), (3, True, START)):
        row = {"id": number, "owner_id": 1, "name": "W", "slug": f"w{number}"}
        row |= {"is_public": public, "deleted_at": deleted}
        row |= {"created_at": START, "updated_at": START}
        conn.execute(insert(schema.workflows).values(**row))


@pytest.mark.parametrize(
    ("method", "path", "body", "problems"),
    [
        ("POST", "/epics/", {}, ["body.title: field required"]),
        (
            "POST",
            "/epics/",
            {"title": " ", "priority": None, "budget_tokens": -1, "budget_usd": -0.5, "tags": None},
            [
                "body.title: must not be blank",
                "body.tags: must not be null",
                "body.priority: must not be null",
                "body.budget_tokens: must be >= 0",
                "body.budget_usd: must be >= 0",
            ],
        ),
        (
            "POST",
            "/epics/",
            {"title": "x" * 256, "priority": 6, "budget_usd": "1", "budget_tokens": 1.5},
            [
                "body.title: must be at most 255 characters",
                "body.priority: must be <= 5",
                "body.budget_tokens: must be an integer",
                "body.budget_usd: must be a number",
            ],
        ),
        (
            "POST",
            "/epics/",
            {"title": "E", "budget_usd": 1e13, "tags": ["x"] * 51, "workflow_id": True},
            [
                "body.tags: must have at most 50 items",
                "body.workflow_id: must be an integer",
                "body.budget_usd: must be <= 1000000000000",
            ],
        ),
        (
            "PATCH",
            UNKNOWN,
            {"status": "archived", "priority": 0, "title": None, "description": None},
            [
                "body.title: must not be null",
                "body.description: must not be null",
                "body.status: must be one of: "
                "planning, active, paused, completed, failed, cancelled",
                "body.priority: must be >= 1",
            ],
        ),
        ("POST", "/epics/batch-delete/", {}, ["body.epic_ids: field required"]),
        ("POST", "/epics/batch-delete/", {"epic_ids": [1]}, ["body.epic_ids[0]: must be a string"]),
        (
            "POST",
            "/epics/batch-delete/",
            {"epic_ids": ["x"] * 1001},
            ["body.epic_ids: must have at most 1000 items"],
        ),
        (
            "GET",
            "/epics/?status=new&limit=1001&offset=-1&tags=" + ",".join("abcdefghijklmnopqrstu"),
            None,
            [
                "query.limit: must be <= 1000",
                "query.offset: must be >= 0",
                "query.status: must be one of: "
                "planning, active, paused, completed, failed, cancelled",
                "query.tags: must have at most 20 items",
            ],
        ),
    ],
)
async def test_a_wrong_request_is_explained(
    work: WorkServer, method: str, path: str, body: dict[str, Any] | None, problems: list[str]
) -> None:
    """All problems come together in the contract's words."""
    response = await work.call(method, path, body)

    assert response.status_code == 422
    assert response.json() == {"detail": {"validation_errors": problems}}
    assert work.told() == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", UNKNOWN, None),
        ("PATCH", UNKNOWN, {"title": "x"}),
        ("PATCH", UNKNOWN, {}),
        ("DELETE", UNKNOWN, None),
        ("GET", f"{UNKNOWN}tasks/", None),
    ],
)
async def test_an_unknown_epic_is_not_found(
    work: WorkServer, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """Every route that names one says so, in the same words."""
    response = await work.call(method, path, body)

    assert (response.status_code, response.json()) == (404, NOT_FOUND)


async def test_every_user_sees_and_edits_all_epics(work: WorkServer) -> None:
    """Bob's epic is Ada's as well; the creator stays."""
    epic = await work.epic()
    path = f"/epics/{epic['id']}/"

    changed = await work.call("PATCH", path, {"priority": 5}, key="ada-key")

    assert changed.status_code == 200
    assert changed.json()["user_profile_id"] == 2
    assert (await work.call("GET", "/epics/", key="ada-key")).json()["total"] == 1
    assert (await work.call("DELETE", path, key="ada-key")).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/epics/"),
        ("POST", "/epics/"),
        ("POST", "/epics/batch-delete/"),
        ("GET", UNKNOWN),
        ("PATCH", UNKNOWN),
        ("DELETE", UNKNOWN),
        ("GET", f"{UNKNOWN}tasks/"),
    ],
)
async def test_nobody_enters_without_a_key(work: WorkServer, method: str, path: str) -> None:
    """Every route wants a Bearer token."""
    response = await work.call(method, path, key="wrong")

    assert response.status_code == 401
    assert response.json() == {"detail": "Invalid or missing API key."}


async def test_the_list_is_newest_first_and_paged(work: WorkServer) -> None:
    """`total` counts all; a page is cut from the newest end."""
    ids = [(await work.epic(title=str(number)))["id"] for number in range(3)]

    page = await work.get("/epics/?limit=2&offset=1")

    assert [epic["id"] for epic in page["items"]] == [ids[1], ids[0]]
    assert page["total"] == 3
    assert await work.get("/epics/?limit=0") == {"items": [], "total": 3}
    assert (await work.get("/epics/?offset=9"))["items"] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tags=q1,q2", "ab"),
        ("tags=q2", "b"),
        ("tags=Q1", ""),
        ("tags=q", ""),
        ("tags=, ,", "abc"),
        ("tags=", "abc"),
        ("tags=%22", ""),
        ("status=active", "a"),
        ("status=", "abc"),
        ("status=active&tags=q2", ""),
        ("tags=q1&status=active&what=1", "a"),
    ],
)
async def test_filters_are_exact_and_combine(work: WorkServer, query: str, found: str) -> None:
    """Any of the tags, whole and case-sensitive; AND between filters; an empty one is none."""
    first = await work.epic(title="a", tags=["q1", "x"])
    await work.epic(title="b", tags=["q1", "q2"])
    await work.epic(title="c", tags=['","', "a,"])
    await work.change(first, status="active")

    page = await work.get(f"/epics/?{query}")

    assert sorted(epic["title"] for epic in page["items"]) == list(found)
    assert page["total"] == len(found)


async def test_an_epic_lists_its_own_tasks(work: WorkServer) -> None:
    """Newest first, paged, those of others left out."""
    epic, other = await work.epic(), await work.epic()
    tasks = [await work.task(epic) for _ in range(3)]
    await work.task(other)

    page = await work.get(f"/epics/{epic['id']}/tasks/?limit=2")

    assert page == {"items": [tasks[2], tasks[1]], "total": 3}

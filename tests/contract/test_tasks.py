"""tasks.md over a real socket: the object, the endpoints, their events."""

from typing import Any

import pytest
import trio

from tests.kit.store import migrated, store, store_url
from tests.kit.work import WorkServer, work

__all__ = ["migrated", "store", "store_url", "work"]

NOT_FOUND = {"detail": "Task not found."}
UNKNOWN = "/tasks/tk-000000000000/"
STATUSES = "pending, blocked, running, completed, failed, cancelled"


async def test_a_created_task_is_shown_with_every_default(work: WorkServer) -> None:
    """The example of the section: a null priority is 2, and the task is blocked."""
    epic = await work.epic()
    first = await work.task(epic)
    body = {"epic_id": epic["id"], "title": "Export ledger", "priority": None}

    response = await work.call("POST", "/tasks/", {**body, "depends_on": [first["id"]]})

    assert response.status_code == 201
    task = response.json()
    assert task == {
        "id": task["id"],
        "epic_id": epic["id"],
        "title": "Export ledger",
        "description": "",
        "tags": [],
        "created_by_node_id": None,
        "status": "blocked",
        "priority": 2,
        "workflow_id": None,
        "workflow_slug": None,
        "execution_id": None,
        "workflow_source": "inline",
        "depends_on": [first["id"]],
        "requirements": None,
        "estimated_tokens": None,
        "actual_tokens": 0,
        "actual_usd": 0.0,
        "llm_calls": 0,
        "tool_invocations": 0,
        "duration_ms": 0,
        "created_at": "2026-02-03T08:15:03",
        "updated_at": "2026-02-03T08:15:03",
        "started_at": None,
        "completed_at": None,
        "result_summary": None,
        "error_message": None,
        "retry_count": 0,
        "max_retries": 2,
        "notes": [],
    }
    assert task["id"].startswith("tk-")
    assert len(task["id"]) == 15
    assert work.told() == [(f"epic:{epic['id']}", "task_created", task)]
    assert await work.again(task) == task
    assert (await work.again(epic))["total_tasks"] == 2


async def test_every_field_of_create_is_kept(work: WorkServer) -> None:
    """What only a change or the engine may set is ignored; the workflow's slug is not checked."""
    epic = await work.epic()
    sent = {
        "title": "T",
        "description": "d",
        "tags": ["a"],
        "priority": 5,
        "workflow_slug": "comes later",
        "requirements": {"tools": ["x"], "n": None},
        "estimated_tokens": 0,
        "max_retries": 0,
    }
    ignored = {"status": "completed", "notes": [1], "execution_id": "e", "retry_count": 3}

    task = await work.task(epic, **sent, **ignored)

    assert sent == {name: task[name] for name in sent}
    assert (task["status"], task["notes"], task["execution_id"]) == ("pending", [], None)
    assert task["retry_count"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "problems"),
    [
        ("POST", "/tasks/", {}, ["body.epic_id: field required", "body.title: field required"]),
        (
            "POST",
            "/tasks/",
            {
                "epic_id": "ep-1",
                "title": " ",
                "tags": [""],
                "priority": 0,
                "workflow_slug": "x" * 256,
                "depends_on": None,
                "requirements": [],
                "estimated_tokens": -1,
                "max_retries": -1,
            },
            [
                "body.title: must not be blank",
                "body.tags[0]: must be at least 1 characters",
                "body.priority: must be >= 1",
                "body.workflow_slug: must be at most 255 characters",
                "body.depends_on: must not be null",
                "body.requirements: must be an object",
                "body.estimated_tokens: must be >= 0",
                "body.max_retries: must be >= 0",
            ],
        ),
        (
            "PATCH",
            UNKNOWN,
            {
                "title": None,
                "description": None,
                "tags": None,
                "status": "done",
                "priority": None,
                "execution_id": "x" * 37,
                "notes": None,
            },
            [
                "body.title: must not be null",
                "body.description: must not be null",
                "body.tags: must not be null",
                f"body.status: must be one of: {STATUSES}",
                "body.priority: must not be null",
                "body.execution_id: must be at most 36 characters",
                "body.notes: must not be null",
            ],
        ),
        ("POST", "/tasks/batch-delete/", {}, ["body.task_ids: field required"]),
        (
            "POST",
            "/tasks/batch-delete/",
            {"task_ids": ["x"] * 1001},
            ["body.task_ids: must have at most 1000 items"],
        ),
        (
            "GET",
            "/tasks/?status=done&limit=x&offset=-1",
            None,
            [
                "query.limit: must be an integer",
                "query.offset: must be >= 0",
                f"query.status: must be one of: {STATUSES}",
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


async def test_a_task_needs_an_epic(work: WorkServer) -> None:
    """An unknown one is not found, before anything else about the task is looked at."""
    body = {"epic_id": "ep-000000000000", "title": "x", "depends_on": ["tk-1"]}

    response = await work.call("POST", "/tasks/", body)

    assert (response.status_code, response.json()) == (404, {"detail": "Epic not found."})
    assert work.told() == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", UNKNOWN, None),
        ("PATCH", UNKNOWN, {"title": "x"}),
        ("PATCH", UNKNOWN, {}),
        ("DELETE", UNKNOWN, None),
    ],
)
async def test_an_unknown_task_is_not_found(
    work: WorkServer, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """Every route that names one says so, in the same words."""
    response = await work.call(method, path, body)

    assert (response.status_code, response.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tasks/"),
        ("POST", "/tasks/"),
        ("POST", "/tasks/batch-delete/"),
        ("GET", UNKNOWN),
        ("PATCH", UNKNOWN),
        ("DELETE", UNKNOWN),
    ],
)
async def test_nobody_enters_without_a_key(work: WorkServer, method: str, path: str) -> None:
    """Every route wants a Bearer token."""
    response = await work.call(method, path, key="wrong")

    assert response.status_code == 401
    assert response.json() == {"detail": "Invalid or missing API key."}


async def test_every_user_sees_and_edits_all_tasks(work: WorkServer) -> None:
    """Bob's task is Ada's as well."""
    task = await work.task(await work.epic())
    path = f"/tasks/{task['id']}/"

    assert (await work.call("GET", path, key="ada-key")).json() == task
    assert (await work.call("PATCH", path, {"title": "x"}, key="ada-key")).status_code == 200
    assert (await work.call("DELETE", path, key="ada-key")).status_code == 204


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "cba"),
        ("limit=1&offset=1", "b"),
        ("status=blocked", "b"),
        ("tags=x,y", "ba"),
        ("tags=X", ""),
        ("status=blocked&tags=x", ""),
        ("epic_id=", "cba"),
        ("epic_id=ep-000000000000", ""),
    ],
)
async def test_the_list_is_newest_first_and_filtered(
    work: WorkServer, query: str, found: str
) -> None:
    """Filters combine; an unknown epic is an empty list."""
    epic = await work.epic()
    first = await work.task(epic, title="a", tags=["x"])
    await work.task(epic, first, title="b", tags=["y", "z"])
    other = await work.task(await work.epic(), title="c")

    page = await work.get(f"/tasks/?{query}")

    assert "".join(task["title"] for task in page["items"]) == found
    assert page["total"] == (3 if "limit" in query else len(found))
    mine = await work.get(f"/tasks/?epic_id={other['epic_id']}")
    assert mine == {"items": [other], "total": 1}


async def test_a_change_moves_only_what_was_sent(work: WorkServer) -> None:
    """The others stay, `updated_at` moves, the event carries the whole task."""
    epic = await work.epic()
    first = await work.task(epic)
    task = await work.task(epic, first, requirements={"a": 1})
    sent = {
        "title": "U",
        "description": "d",
        "tags": ["t"],
        "status": "pending",
        "priority": 1,
        "workflow_slug": "w",
        "execution_id": "not checked",
        "result_summary": "r",
        "error_message": "e",
        "notes": [1, None, {"deep": [True]}, "x"],
    }

    changed = await work.change(task, **sent, depends_on=[], epic_id="x", max_retries=9)

    assert changed == task | sent | {"updated_at": changed["updated_at"]}
    assert changed["updated_at"] > task["updated_at"]
    assert work.told() == [(f"epic:{epic['id']}", "task_updated", changed)]
    emptied = dict.fromkeys(("workflow_slug", "execution_id", "result_summary", "error_message"))
    assert (await work.change(task, **emptied)).items() >= emptied.items()


async def test_an_empty_change_changes_and_tells_nothing(work: WorkServer) -> None:
    """`{}` answers with the task as it is."""
    task = await work.task(await work.epic())

    assert await work.change(task) == task
    assert work.told() == []


async def test_start_and_end_are_timed(work: WorkServer) -> None:
    """The first start is kept for ever, the end as long as the status is final."""
    task = await work.task(await work.epic())

    running = await work.change(task, status="running")
    completed = await work.change(task, status="completed")
    renamed = await work.change(task, title="x")
    failed = await work.change(task, status="failed")
    again = await work.change(task, status="running")

    assert running["started_at"] == running["updated_at"]
    assert running["completed_at"] is None
    assert completed["completed_at"] == completed["updated_at"]
    assert renamed["completed_at"] == completed["completed_at"]
    assert failed["completed_at"] == failed["updated_at"]
    assert (again["started_at"], again["completed_at"]) == (running["started_at"], None)


@pytest.mark.parametrize("ids", [[], ["tk-000000000000"]])
async def test_nothing_to_delete_is_accepted(work: WorkServer, ids: list[str]) -> None:
    """An empty list and unknown ids do nothing."""
    response = await work.call("POST", "/tasks/batch-delete/", {"task_ids": ids})

    assert response.status_code == 204
    assert work.told() == []


async def test_events_of_an_epic_come_in_the_order_of_its_commits(work: WorkServer) -> None:
    """Forty changes at once: each is told once, and the last told is what is stored."""
    epic = await work.epic()
    task = await work.task(epic)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(work.call, "PATCH", f"/tasks/{task['id']}/", {"title": str(number)})

    told = work.told()
    assert len(told) == 40
    assert told[-1][2] == await work.again(task)

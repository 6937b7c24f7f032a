"""Epics and tasks as agents use them. Contract: node-types.md §8.5, §8.6."""

import pytest
from sqlalchemy import update

from pipelit.store.schema import epics, executions, tasks
from tests.kit.tools import MAIN, OTHER, Bench, bench

__all__ = ["bench"]

EPIC_STATUSES = "active, cancelled, completed, failed, paused, planning"
TASK_STATUSES = "blocked, cancelled, completed, failed, pending, running"


async def make_epic(bench: Bench, **fields: object) -> str:
    return (await bench.call("create_epic", **{"title": "Pipeline", **fields}))["epic_id"]


async def make_task(bench: Bench, epic_id: str, **fields: object) -> str:
    answer = await bench.call("create_task", epic_id=epic_id, **{"title": "T", **fields})
    return answer["task_id"]


async def test_an_agent_makes_an_epic_of_its_owner(bench: Bench) -> None:
    """The answer of the contract; who made it where is kept; one event."""
    made = await bench.call("create_epic", title="Pipeline", tags=" a, b,,a", budget_usd=0.5)
    (row,) = await bench.rows(epics)

    assert made == {
        "success": True,
        "epic_id": row.id,
        "title": "Pipeline",
        "status": "planning",
    }
    assert row.id.startswith("ep-")
    assert (row.user_id, row.workflow_id, row.created_by_node_id) == (1, MAIN, "helper")
    assert (row.tags, row.budget_micros, row.priority) == (["a", "b"], 500_000, 2)
    assert bench.told == [(f"epic:{row.id}", "epic_created")]


async def test_a_call_made_again_makes_nothing_new(bench: Bench) -> None:
    """After a crash the agent's call is repeated with its key."""
    first = await bench.call("create_epic", title="A", key="k")
    again = await bench.call("create_epic", title="A", key="k")
    other = await bench.call("create_epic", title="A", key="l" * 400)
    task = await bench.call("create_task", epic_id=first["epic_id"], title="t", key="k")
    task_again = await bench.call("create_task", epic_id=first["epic_id"], title="t", key="k")

    assert again == first != other
    assert task_again == task
    assert len(await bench.rows(epics)) == 2
    assert [kind for _, kind in bench.told] == ["epic_created", "epic_created", "task_created"]


async def test_an_epic_shows_itself_and_its_tasks(bench: Bench) -> None:
    """With what it has cost."""
    epic_id = await make_epic(bench, budget_tokens=10)
    task_id = await make_task(bench, epic_id)
    await bench.change(update(epics).values(spent_micros=250_000, spent_tokens=7))

    assert await bench.call("epic_status", epic_id=epic_id) == {
        "success": True,
        "epic_id": epic_id,
        "title": "Pipeline",
        "status": "planning",
        "priority": 2,
        "total_tasks": 1,
        "completed_tasks": 0,
        "failed_tasks": 0,
        "spent_tokens": 7,
        "spent_usd": 0.25,
        "budget_tokens": 10,
        "budget_usd": None,
        "tasks": [{"id": task_id, "title": "T", "status": "pending"}],
    }


async def test_only_the_given_fields_of_an_epic_change(bench: Bench) -> None:
    """A terminal status has its time."""
    epic_id = await make_epic(bench, description="old")

    changed = await bench.call("update_epic", epic_id=epic_id, status="completed", title="New")
    (row,) = await bench.rows(epics)

    assert changed == {"success": True, "epic_id": epic_id, "status": "completed"}
    assert (row.title, row.description) == ("New", "old")
    assert row.completed_at is not None
    assert bench.told[-1] == (f"epic:{epic_id}", "epic_updated")


async def test_a_cancelled_epic_cancels_what_its_owner_may_cancel(bench: Bench) -> None:
    """A task may name any execution; that gives no right to it."""
    epic_id = await make_epic(bench)
    mine, theirs = await bench.execution("e-mine"), await bench.execution("e-theirs", OTHER)
    for execution_id in (mine, theirs):
        task_id = await make_task(bench, epic_id)
        linked = update(tasks).where(tasks.c.id == task_id)
        await bench.change(linked.values(status="running", execution_id=execution_id))

    await bench.call("update_epic", epic_id=epic_id, status="cancelled")

    assert bench.manager.cancelled == [mine]
    assert {task.status for task in await bench.rows(tasks)} == {"cancelled"}


async def test_epics_are_found_by_text_tags_and_status(bench: Bench) -> None:
    """Newest first, with how they ended and what they cost."""
    done = await make_epic(bench, title="Release NOTES", tags="a,b")
    lost = await make_epic(bench, title="x", description="about notes", tags="c")
    await make_epic(bench, title="other")
    await bench.change(
        update(epics).where(epics.c.id == done).values(status="completed", spent_micros=500_000)
    )
    await bench.change(update(epics).where(epics.c.id == lost).values(status="failed"))

    by_text = await bench.call("search_epics", query="notes")
    by_tag = await bench.call("search_epics", tags="b, zz")
    by_status = await bench.call("search_epics", status="failed")
    nothing = await bench.call("search_epics", query="%")
    few = await bench.call("search_epics", limit=0)

    assert {result["epic_id"] for result in by_text["results"]} == {done, lost}
    assert (by_text["success_rate"], by_text["avg_cost"]) == (0.5, 0.25)
    assert by_tag["results"] == [
        {"epic_id": done, "title": "Release NOTES", "status": "completed", "tags": ["a", "b"]}
    ]
    assert [result["epic_id"] for result in by_status["results"]] == [lost]
    assert nothing == {"success": True, "results": [], "success_rate": None, "avg_cost": 0}
    assert len(few["results"]) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("create_epic", {"title": "x", "priority": 6}, "Priority must be between 1 and 5"),
        ("create_epic", {"title": " "}, "title must not be blank"),
        ("create_epic", {"title": "x" * 256}, "title must be at most 255 characters"),
        ("create_epic", {"title": "x", "budget_tokens": -1}, "budget_tokens must be >= 0"),
        ("create_epic", {"title": "x", "budget_usd": -0.1}, "budget_usd must be >= 0"),
        (
            "create_epic",
            {"title": "x", "tags": ",".join(map(str, range(21)))},
            "Too many tags specified. Maximum is 20.",
        ),
        (
            "create_epic",
            {"title": "x", "description": "x" * 100_001},
            "description must be at most 100000 characters",
        ),
        ("epic_status", {"epic_id": "ep-0"}, "Epic not found"),
        ("update_epic", {"epic_id": "ep-0", "title": "x"}, "Epic not found"),
        (
            "update_epic",
            {"epic_id": "ep-0", "status": "done"},
            f"Invalid status. Must be one of: {EPIC_STATUSES}",
        ),
        (
            "search_epics",
            {"status": "done"},
            f"Invalid status. Must be one of: {EPIC_STATUSES}",
        ),
        ("create_task", {"epic_id": "ep-0", "title": "x"}, "Epic not found"),
        ("list_tasks", {"epic_id": "ep-0"}, "Epic not found"),
        ("update_task", {"task_id": "tk-0", "title": "x"}, "Task not found"),
        ("cancel_task", {"task_id": "tk-0"}, "Task not found"),
        (
            "update_task",
            {"task_id": "tk-0", "status": "done"},
            f"Invalid status. Must be one of: {TASK_STATUSES}",
        ),
        (
            "create_task",
            {"epic_id": "ep-0", "title": "x", "priority": 0},
            "Priority must be between 1 and 5",
        ),
        (
            "create_task",
            {"epic_id": "ep-0", "title": "x", "max_retries": -1},
            "max_retries must be >= 0",
        ),
    ],
)
async def test_what_makes_no_sense_is_refused(
    bench: Bench, name: str, arguments: dict[str, object], error: str
) -> None:
    assert await bench.error(name, **arguments) == error


async def test_epics_of_others_do_not_exist(bench: Bench) -> None:
    """Not even for the agent of an admin."""
    theirs = (await bench.call("create_epic", as_workflow=OTHER, title="x"))["epic_id"]
    created = await bench.call("create_task", as_workflow=OTHER, epic_id=theirs, title="t")
    task_id = created["task_id"]

    assert await bench.error("epic_status", epic_id=theirs) == "Epic not found"
    assert await bench.error("update_epic", epic_id=theirs, title="y") == "Epic not found"
    assert await bench.error("create_task", epic_id=theirs, title="y") == "Epic not found"
    assert await bench.error("list_tasks", epic_id=theirs) == "Epic not found"
    assert await bench.error("update_task", task_id=task_id, title="y") == "Task not found"
    assert await bench.error("cancel_task", task_id=task_id) == "Task not found"
    assert (await bench.call("search_epics"))["results"] == []


async def test_a_task_waits_for_what_it_depends_on(bench: Bench) -> None:
    """It goes on when that is completed."""
    epic_id = await make_epic(bench)
    first = await make_task(bench, epic_id, title="A")
    second = await bench.call("create_task", epic_id=epic_id, title="B", depends_on=f" {first},")
    assert second["status"] == "blocked"

    done = await bench.call("update_task", task_id=first, status="completed")
    listed = await bench.call("list_tasks", epic_id=epic_id)

    assert done == {"success": True, "task_id": first, "status": "completed"}
    assert listed["total"] == 2
    assert {task["id"]: task["status"] for task in listed["tasks"]} == {
        first: "completed",
        second["task_id"]: "pending",
    }
    (shown,) = (task for task in listed["tasks"] if task["title"] == "B")
    assert shown == {
        "id": second["task_id"],
        "title": "B",
        "status": "pending",
        "priority": 2,
        "depends_on": [first],
        "execution_id": None,
    }


async def test_a_dependency_must_be_of_the_same_epic(bench: Bench) -> None:
    epic_id = await make_epic(bench)

    error = await bench.error("create_task", epic_id=epic_id, title="x", depends_on="tk-nowhere")

    assert error == "One or more dependencies do not exist"


async def test_the_total_of_a_list_counts_what_the_limit_hides(bench: Bench) -> None:
    epic_id = await make_epic(bench)
    for title in "abc":
        await make_task(bench, epic_id, title=title, tags="x" if title == "a" else "")

    limited = await bench.call("list_tasks", epic_id=epic_id, limit=1)
    tagged = await bench.call("list_tasks", epic_id=epic_id, tags="x")
    none = await bench.call("list_tasks", epic_id=epic_id, status="failed")

    assert (len(limited["tasks"]), limited["total"]) == (1, 3)
    assert [task["title"] for task in tagged["tasks"]] == ["a"]
    assert (none["tasks"], none["total"]) == ([], 0)


async def test_a_failed_task_is_tried_again_so_often(bench: Bench) -> None:
    """Then it stays failed."""
    task_id = await make_task(bench, await make_epic(bench), max_retries=1)
    for status in ("failed", "pending", "failed"):
        await bench.call("update_task", task_id=task_id, status=status)

    error = await bench.error("update_task", task_id=task_id, status="pending")
    (row,) = await bench.rows(tasks)

    assert error == "Task has reached max_retries (1)"
    assert (row.status, row.retry_count) == ("failed", 1)


async def test_notes_are_added(bench: Bench) -> None:
    task_id = await make_task(bench, await make_epic(bench))

    for note in ("one", "two"):
        await bench.call("update_task", task_id=task_id, notes=note)
    (row,) = await bench.rows(tasks)

    assert row.notes == ["one", "two"]


@pytest.mark.parametrize(
    ("workflow_id", "status", "is_cancelled"),
    [
        (MAIN, "running", True),
        (MAIN, "pending", True),
        (MAIN, "interrupted", True),
        (MAIN, "completed", False),
        (OTHER, "running", False),
    ],
)
async def test_a_cancelled_task_cancels_its_execution(
    bench: Bench, workflow_id: int, status: str, is_cancelled: bool
) -> None:
    """If it has not ended, and the owner may."""
    task_id = await make_task(bench, await make_epic(bench))
    execution_id = await bench.execution("e-9", workflow_id, status)
    await bench.change(update(tasks).values(execution_id=execution_id))

    answer = await bench.call("cancel_task", task_id=task_id, reason="too slow")
    (row,) = await bench.rows(tasks)
    (run,) = await bench.rows(executions)

    assert answer == {"success": True, "task_id": task_id, "execution_cancelled": is_cancelled}
    assert (row.status, row.notes) == ("cancelled", ["Cancelled: too slow"])
    assert run.status == ("cancelled" if is_cancelled else status)

"""tasks.md over a real socket: who waits for whom."""

from typing import Any

import pytest

from tests.kit.store import migrated, store, store_url
from tests.kit.work import WorkServer, work

__all__ = ["migrated", "store", "store_url", "work"]

STATUSES = "pending, blocked, running, completed, failed, cancelled"


def kinds(told: list[tuple[str, str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """Return type and id of each event."""
    return [(kind, data["id"]) for _, kind, data in told]


async def test_dependencies_are_tasks_of_the_same_epic(work: WorkServer) -> None:
    """Each that is not is named with its place; nothing is stored."""
    epic, other = await work.epic(), await work.epic()
    mine, foreign = await work.task(epic), await work.task(other)
    wanted = [mine["id"], foreign["id"], mine["id"], "tk-nothing"]
    body = {"epic_id": epic["id"], "title": "T", "depends_on": wanted}

    response = await work.call("POST", "/tasks/", body)

    assert response.status_code == 422
    assert response.json()["detail"]["validation_errors"] == [
        f"body.depends_on[1]: task '{foreign['id']}' does not exist in this epic",
        "body.depends_on[3]: task 'tk-nothing' does not exist in this epic",
    ]
    assert (await work.again(epic))["total_tasks"] == 1
    assert work.told() == []


async def test_duplicate_dependencies_are_one(work: WorkServer) -> None:
    """Their order stays."""
    epic = await work.epic()
    first, second = await work.task(epic), await work.task(epic)

    task = await work.task(epic, second, first, second)

    assert task["depends_on"] == [second["id"], first["id"]]


async def test_completion_unblocks_those_who_waited_for_nothing_else(work: WorkServer) -> None:
    """Each is told before the completed one; who waits for another stays blocked."""
    epic = await work.epic()
    first, second = await work.task(epic), await work.task(epic)
    one, two = await work.task(epic, first), await work.task(epic, first)
    both = await work.task(epic, first, second)
    await work.change(both, notes=["still blocked"])
    work.told()

    completed = await work.change(first, status="completed")

    told = work.told()
    assert kinds(told) == [
        ("task_updated", one["id"]),
        ("task_updated", two["id"]),
        ("task_updated", first["id"]),
    ]
    assert [data["status"] for _, _, data in told] == ["pending", "pending", "completed"]
    assert told[0][2] == await work.again(one)
    assert told[2][2] == completed
    assert (await work.again(both))["status"] == "blocked"
    assert (await work.again(epic))["completed_tasks"] == 1

    await work.change(second, status="completed")

    assert (await work.again(both))["status"] == "pending"


async def test_a_new_task_on_completed_ones_is_pending(work: WorkServer) -> None:
    """Only what is not completed blocks."""
    epic = await work.epic()
    first = await work.task(epic)
    await work.change(first, status="completed")

    task = await work.task(epic, first)

    assert task["status"] == "pending"


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_an_unsuccessful_dependency_keeps_its_dependents_blocked(
    work: WorkServer, end: str
) -> None:
    """Nothing goes on by itself after a failure."""
    epic = await work.epic()
    first = await work.task(epic)
    waiting = await work.task(epic, first)

    await work.change(first, status=end, execution_id="e-1")

    assert kinds(work.told()) == [("task_updated", first["id"])]
    assert (await work.again(waiting))["status"] == "blocked"
    assert work.executions.cancelled == []


async def test_an_uncompleted_dependency_takes_nothing_back(work: WorkServer) -> None:
    """Who was let go on stays as it is."""
    epic = await work.epic()
    first = await work.task(epic)
    waiting = await work.task(epic, first)
    await work.change(first, status="completed")

    await work.change(first, status="running")

    assert (await work.again(waiting))["status"] == "pending"


async def test_any_status_may_follow_any_other(work: WorkServer) -> None:
    """Also pending for a task with open dependencies."""
    epic = await work.epic()
    task = await work.task(epic, await work.task(epic))

    for status in (*STATUSES.split(", "), *reversed(STATUSES.split(", "))):
        assert (await work.change(task, status=status))["status"] == status


async def test_a_deleted_task_holds_nobody_back(work: WorkServer) -> None:
    """Its id leaves every `depends_on`; who waited for it only goes on and is told."""
    epic = await work.epic()
    first, second = await work.task(epic), await work.task(epic)
    only, both = await work.task(epic, first), await work.task(epic, first, second)
    running = await work.task(epic, first)
    await work.change(running, status="running")
    work.told()

    response = await work.call("DELETE", f"/tasks/{first['id']}/")

    assert response.status_code == 204
    told = work.told()
    assert kinds(told) == [("task_updated", only["id"]), ("task_deleted", first["id"])]
    assert told[1] == (f"epic:{epic['id']}", "task_deleted", {"id": first["id"]})
    assert (told[0][2]["status"], told[0][2]["depends_on"]) == ("pending", [])
    waiting = await work.again(both)
    assert (waiting["status"], waiting["depends_on"]) == ("blocked", [second["id"]])
    going = await work.again(running)
    assert (going["status"], going["depends_on"]) == ("running", [])
    assert (await work.again(epic))["total_tasks"] == 4


async def test_many_are_deleted_at_once(work: WorkServer) -> None:
    """One event per epic names its tasks; unknown ids are skipped, duplicates are one."""
    epic, other = await work.epic(), await work.epic()
    first, second = await work.task(epic), await work.task(epic)
    waiting = await work.task(epic, first, second)
    foreign = await work.task(other)
    ids = [second["id"], foreign["id"], "tk-000000000000", first["id"], second["id"]]

    response = await work.call("POST", "/tasks/batch-delete/", {"task_ids": ids})

    assert response.status_code == 204
    told = work.told()
    assert [(channel, kind) for channel, kind, _ in told] == [
        (f"epic:{epic['id']}", "task_updated"),
        (f"epic:{epic['id']}", "tasks_deleted"),
        (f"epic:{other['id']}", "tasks_deleted"),
    ]
    assert told[0][2]["id"] == waiting["id"]
    assert told[1][2] == {"task_ids": [first["id"], second["id"]]}
    assert told[2][2] == {"task_ids": [foreign["id"]]}
    assert (await work.again(epic))["total_tasks"] == 1
    assert (await work.again(other))["total_tasks"] == 0

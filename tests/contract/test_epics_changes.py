"""epics.md over a real socket: changed, cancelled, deleted, and what follows."""

from typing import Any

import pytest
from sqlalchemy import update

from pipelit.store import schema
from tests.kit.store import migrated, store, store_url
from tests.kit.work import WorkServer, work

__all__ = ["migrated", "store", "store_url", "work"]


async def test_a_change_moves_only_what_was_sent(work: WorkServer) -> None:
    """The others stay, `updated_at` moves, the event carries the whole epic."""
    epic = await work.epic(tags=["a"], budget_usd=1, budget_tokens=9)
    sent = {
        "title": "F",
        "description": "d",
        "tags": [],
        "status": "paused",
        "priority": 4,
        "budget_tokens": None,
        "budget_usd": None,
        "result_summary": "half",
        "workflow_id": 7,
    }

    changed = await work.change(epic, **sent)

    del sent["workflow_id"]
    assert changed == epic | sent | {"updated_at": changed["updated_at"]}
    assert changed["updated_at"] > epic["updated_at"]
    assert work.told() == [(f"epic:{epic['id']}", "epic_updated", changed)]
    assert (await work.change(epic, result_summary=None))["result_summary"] is None


async def test_an_empty_change_changes_and_tells_nothing(work: WorkServer) -> None:
    """`{}` answers with the epic as it is."""
    epic = await work.epic()

    assert await work.change(epic) == epic
    assert work.told() == []


async def test_current_values_are_a_change_like_any_other(work: WorkServer) -> None:
    """They move `updated_at` and are told."""
    epic = await work.epic()

    same = await work.change(epic, title="E")

    assert same["updated_at"] > epic["updated_at"]
    assert [kind for _, kind, _ in work.told()] == ["epic_updated"]


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_completion_is_timed(work: WorkServer, end: str) -> None:
    """Set when the status becomes final, kept while it stays, null when it leaves."""
    epic = await work.epic()

    ended = await work.change(epic, status=end)
    again = await work.change(epic, status=end)
    back = await work.change(epic, status="active")

    assert ended["completed_at"] == ended["updated_at"]
    assert again["completed_at"] == ended["completed_at"]
    assert back["completed_at"] is None


async def test_cancelling_takes_the_tasks_along(work: WorkServer) -> None:
    """Unfinished tasks are cancelled and told first; executions of the running ones are stopped."""
    epic = await work.epic()
    pending = await work.task(epic)
    blocked = await work.task(epic, pending)
    running = await work.task(epic)
    idle = await work.task(epic)
    done = await work.task(epic)
    await work.change(pending, execution_id="of-a-pending-task")
    await work.change(running, status="running", execution_id="e-1")
    await work.change(idle, status="running")
    await work.change(done, status="failed", execution_id="e-2")
    work.told()

    cancelled = await work.change(epic, status="cancelled")

    told = work.told()
    assert [(kind, data["id"]) for _, kind, data in told] == [
        ("task_updated", pending["id"]),
        ("task_updated", blocked["id"]),
        ("task_updated", running["id"]),
        ("task_updated", idle["id"]),
        ("epic_updated", epic["id"]),
    ]
    assert {channel for channel, _, _ in told} == {f"epic:{epic['id']}"}
    for _, _, task in told[:-1]:
        assert task["status"] == "cancelled"
        assert task["completed_at"] == task["updated_at"] == cancelled["completed_at"]
        assert await work.again(task) == task
    assert told[-1][2] == cancelled
    assert (await work.again(done))["status"] == "failed"
    assert work.executions.cancelled == ["e-1"]


async def test_deleting_takes_the_tasks_along_silently(work: WorkServer) -> None:
    """One event for the epic, none for its tasks; linked executions go on."""
    epic = await work.epic()
    task = await work.task(epic)
    await work.change(task, status="running", execution_id="e-1")
    work.told()

    response = await work.call("DELETE", f"/epics/{epic['id']}/")

    assert response.status_code == 204
    assert work.told() == [(f"epic:{epic['id']}", "epic_deleted", {"id": epic["id"]})]
    assert (await work.call("GET", f"/tasks/{task['id']}/")).status_code == 404
    assert work.executions.cancelled == []


async def test_many_are_deleted_at_once(work: WorkServer) -> None:
    """Unknown ids are skipped, duplicates are one, each epic is told on its own channel."""
    first, second, kept = await work.epic(), await work.epic(), await work.epic()
    ids = [second["id"], "ep-000000000000", first["id"], second["id"]]

    response = await work.call("POST", "/epics/batch-delete/", {"epic_ids": ids})

    assert response.status_code == 204
    assert work.told() == [
        (f"epic:{epic['id']}", "epic_deleted", {"id": epic["id"]}) for epic in (first, second)
    ]
    assert [epic["id"] for epic in (await work.get("/epics/"))["items"]] == [kept["id"]]


async def test_an_empty_list_deletes_nothing(work: WorkServer) -> None:
    """It is accepted."""
    response = await work.call("POST", "/epics/batch-delete/", {"epic_ids": []})

    assert response.status_code == 204
    assert work.told() == []


async def test_counters_and_sums_are_those_of_the_tasks(work: WorkServer) -> None:
    """Created, finished and deleted tasks are counted in the same transaction, and not told."""
    epic = await work.epic()
    done, failed, rest = await work.task(epic), await work.task(epic), await work.task(epic)
    await work.store.write(
        lambda conn: (
            conn.execute(
                update(schema.tasks)
                .where(schema.tasks.c.id.in_([done["id"], rest["id"]]))
                .values(actual_tokens=7, actual_micros=1_500_000)
            ).rowcount
        )
    )
    await work.change(done, status="completed")
    await work.change(failed, status="failed")

    assert _counted(await work.again(epic)) == (3, 1, 1, 14, 3.0)
    assert "epic_updated" not in {kind for _, kind, _ in work.told()}

    await work.call("DELETE", f"/tasks/{rest['id']}/")
    await work.change(done, status="running")

    assert _counted(await work.again(epic)) == (2, 0, 1, 7, 1.5)


def _counted(epic: Any) -> tuple[Any, ...]:
    names = ("total_tasks", "completed_tasks", "failed_tasks", "spent_tokens", "spent_usd")
    return tuple(epic[name] for name in names)

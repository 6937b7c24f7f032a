"""Epics and tasks as agents use them: only those of the owner of the agent's workflow.

Contract: node-types.md §8.5, §8.6.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from sqlalchemy import Connection

from pipelit.actors.turns import Turns
from pipelit.clock import Clock, Ids
from pipelit.engine.outcome import micros_to_usd
from pipelit.errors import BadRequest, Invalid, NotFound, Refusal
from pipelit.nodes.json_tools import Acting
from pipelit.services.epics import EpicsService
from pipelit.services.executions import CANCELS_AT_ONCE, LINKED_PATIENCE, ExecutionsService
from pipelit.services.principal import Principal
from pipelit.services.tasks import TasksService
from pipelit.services.tool_owner import get_acting, load_acting
from pipelit.services.visibility import can_see_execution, identities, owns
from pipelit.store import Store
from pipelit.store.queries import epics as epic_queries
from pipelit.store.queries import executions as execution_queries
from pipelit.store.queries import tasks as task_queries
from pipelit.store.queries.epics import EpicRow
from pipelit.store.queries.tasks import TaskRow

EPIC_NOT_FOUND = "Epic not found"
TASK_NOT_FOUND = "Task not found"
NO_DEPENDENCY = "One or more dependencies do not exist"
MAX_TASKS_SHOWN = 1000
MAX_NOTES = 1000


class _LinkedExecutions:
    """Stops executions for an agent, whose own may be one of them: then nobody waits for it.

    Implements `epics.LinkedExecutions`.
    """

    def __init__(self, executions: ExecutionsService) -> None:
        self._executions = executions

    async def cancel_each(self, principal: Principal, execution_ids: Collection[str]) -> None:
        """Stop those that the owner may see; wait a little until they have ended."""
        limiter = trio.CapacityLimiter(CANCELS_AT_ONCE)

        async def cancel(execution_id: str) -> None:
            async with limiter:
                with suppress(Refusal):  # gone, not the owner's, or slow: it is being stopped
                    await self._executions.cancel(principal, execution_id)

        with trio.move_on_after(LINKED_PATIENCE):
            async with trio.open_nursery() as nursery:
                for execution_id in dict.fromkeys(execution_ids):
                    nursery.start_soon(cancel, execution_id)


class OwnersEpics:
    """Implements `pipelit.nodes.epic_tools.Epics`."""

    def __init__(
        self, store: Store, turns: Turns, clock: Clock, ids: Ids, executions: ExecutionsService
    ) -> None:
        self._store = store
        linked = _LinkedExecutions(executions)
        self._epics = EpicsService(store, turns, clock, ids, executions=linked)

    async def create(self, acting: Acting, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store an epic; the same call again returns the first one."""
        owner = await load_acting(self._store, acting)
        made = {
            **fields,
            "workflow_id": acting.workflow_id,
            "created_by_node_id": acting.agent_id,
            "dedupe_key": acting.key,
        }
        epic = await self._epics.create(owner, made)
        return {"epic_id": epic.id, "title": epic.title, "status": epic.status}

    async def status(self, acting: Acting, epic_id: str) -> Mapping[str, Any]:
        """Describe an epic and its tasks, the newest first."""

        def load(conn: Connection) -> tuple[EpicRow, Sequence[TaskRow]]:
            epic = _get_epic(conn, get_acting(conn, acting), epic_id)
            return epic, task_queries.list_tasks(
                conn, epic_id=epic_id, limit=MAX_TASKS_SHOWN, offset=0
            )[0]

        epic, tasks = await self._store.read(load)
        budget = epic.budget_micros
        return {
            "epic_id": epic.id,
            "title": epic.title,
            "status": epic.status,
            "priority": epic.priority,
            "total_tasks": epic.total_tasks,
            "completed_tasks": epic.completed_tasks,
            "failed_tasks": epic.failed_tasks,
            "spent_tokens": epic.spent_tokens,
            "spent_usd": micros_to_usd(epic.spent_micros),
            "budget_tokens": epic.budget_tokens,
            "budget_usd": None if budget is None else micros_to_usd(budget),
            "tasks": [{"id": t.id, "title": t.title, "status": t.status} for t in tasks],
        }

    async def update(
        self, acting: Acting, epic_id: str, fields: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Change the given fields of an epic."""
        owner = await _check_epic(self._store, acting, epic_id)
        epic = await self._epics.change(owner, epic_id, fields)
        return {"epic_id": epic.id, "status": epic.status}

    async def search(
        self, acting: Acting, *, query: str, tags: list[str], status: str | None, limit: int
    ) -> Mapping[str, Any]:
        """Return the epics that match, newest first."""

        def search(conn: Connection) -> Sequence[EpicRow]:
            owners = identities(get_acting(conn, acting))
            return epic_queries.search_epics(
                conn, owners, text=query, tags=tags, status=status, limit=limit
            )

        found = await self._store.read(search)
        completed = sum(epic.status == "completed" for epic in found)
        ended = completed + sum(epic.status == "failed" for epic in found)
        spent = sum(micros_to_usd(epic.spent_micros) for epic in found)
        return {
            "results": [
                {"epic_id": epic.id, "title": epic.title, "status": epic.status, "tags": epic.tags}
                for epic in found
            ],
            "success_rate": completed / ended if ended else None,
            "avg_cost": spent / len(found) if found else 0,
        }


class OwnersTasks:
    """Implements `pipelit.nodes.task_tools.Tasks`."""

    def __init__(self, store: Store, tasks: TasksService, executions: ExecutionsService) -> None:
        self._store = store
        self._tasks = tasks
        self._executions = executions

    async def create(
        self, acting: Acting, epic_id: str, fields: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Store a task; the same call again returns the first one."""
        await _check_epic(self._store, acting, epic_id)
        made = {**fields, "created_by_node_id": acting.agent_id, "dedupe_key": acting.key}
        try:
            task = await self._tasks.create(epic_id, made)
        except Invalid as error:
            raise Invalid(NO_DEPENDENCY) from error
        return {"task_id": task.id, "status": task.status}

    async def browse(
        self, acting: Acting, epic_id: str, *, status: str | None, tags: list[str], limit: int
    ) -> Mapping[str, Any]:
        """Return the tasks of an epic that match, newest first."""
        await _check_epic(self._store, acting, epic_id)
        tasks, total = await self._tasks.browse(
            epic_id=epic_id, status=status, tags=tags, limit=limit, offset=0
        )
        names = ("id", "title", "status", "priority", "depends_on", "execution_id")
        return {
            "tasks": [{name: getattr(task, name) for name in names} for task in tasks],
            "total": total,
        }

    async def update(
        self, acting: Acting, task_id: str, fields: Mapping[str, Any], *, note: str | None
    ) -> Mapping[str, Any]:
        """Change the given fields of a task, and add a note."""
        owner = await self._check(acting, task_id)
        derive = partial(_derive, status=fields.get("status"), note=note)
        task = await self._tasks.change(owner, task_id, fields, derive=derive)
        return {"task_id": task.id, "status": task.status}

    async def cancel(self, acting: Acting, task_id: str, *, note: str) -> Mapping[str, Any]:
        """Cancel a task and the execution linked to it, if the owner may."""
        owner = await self._check(acting, task_id)
        derive = partial(_derive, status="cancelled", note=note)
        task = await self._tasks.change(owner, task_id, {"status": "cancelled"}, derive=derive)
        linked = await self._is_running(owner, task.execution_id)
        if linked and task.execution_id is not None:
            await self._executions.cancel(owner, task.execution_id)
        return {"task_id": task.id, "execution_cancelled": linked}

    async def _is_running(self, owner: Principal, execution_id: str | None) -> bool:
        if execution_id is None:
            return False
        row = await self._store.read(partial(execution_queries.find, execution_id=execution_id))
        return (
            row is not None
            and can_see_execution(owner, row.workflow_owner_id, row.user_id)
            and row.status not in execution_queries.TERMINAL
        )

    async def _check(self, acting: Acting, task_id: str) -> Principal:
        """Return the owner, if the task is one of its epics'.

        Raises:
            NotFound: it is not.
        """

        def check(conn: Connection) -> Principal:
            owner = get_acting(conn, acting)
            task = task_queries.find_task(conn, task_id)
            epic = None if task is None else epic_queries.find_epic(conn, task.epic_id)
            if epic is None or not owns(owner, epic.user_id):
                raise NotFound(TASK_NOT_FOUND)
            return owner

        return await self._store.read(check)


async def _check_epic(store: Store, acting: Acting, epic_id: str) -> Principal:
    def check(conn: Connection) -> Principal:
        owner = get_acting(conn, acting)
        _get_epic(conn, owner, epic_id)
        return owner

    return await store.read(check)


def _get_epic(conn: Connection, owner: Principal, epic_id: str) -> EpicRow:
    epic = epic_queries.find_epic(conn, epic_id)
    if epic is None or not owns(owner, epic.user_id):
        raise NotFound(EPIC_NOT_FOUND)
    return epic


def _derive(before: TaskRow, *, status: str | None, note: str | None) -> Mapping[str, Any]:
    """Return what follows from the task as it is: one more try, one more note."""
    changed: dict[str, Any] = {}
    if before.status == "failed" and status == "pending":
        if before.retry_count >= before.max_retries:
            raise BadRequest(f"Task has reached max_retries ({before.max_retries})")
        changed["retry_count"] = before.retry_count + 1
    if note is not None:
        if len(before.notes) >= MAX_NOTES:
            raise BadRequest(f"notes must be at most {MAX_NOTES} items")
        changed["notes"] = [*before.notes, note]
    return changed

"""Tasks: a registry of work that starts nothing by itself. Contract: tasks.md."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.actors.epic_changes import Task, channel, show_task, tell_tasks
from pipelit.actors.turns import News, Turns, event_data
from pipelit.clock import Clock, Ids
from pipelit.engine.tasks import completion_time, find_strangers, initial_status
from pipelit.errors import Invalid, NotFound
from pipelit.services.epics import get_epic
from pipelit.services.principal import Principal
from pipelit.services.visibility import can_see_execution
from pipelit.store import Store
from pipelit.store.queries import epic_books
from pipelit.store.queries import executions as execution_queries
from pipelit.store.queries import tasks as queries
from pipelit.store.queries.tasks import TaskRow

NOT_FOUND = "Task not found."
NO_EXECUTION = "Execution not found."


class _Changed(msgspec.Struct, frozen=True):
    """A task after a change, and those that it let go on."""

    task: TaskRow
    unblocked: Sequence[TaskRow] = ()
    is_new: bool = True
    """Whether anything was asked for."""


class _Deleted(msgspec.Struct, frozen=True):
    """Tasks of one epic that are gone, and those that this let go on."""

    epic_id: str
    ids: Sequence[str]
    unblocked: Sequence[TaskRow]


class TasksService:
    """What the contract's tasks section lets people do: everybody may do everything."""

    def __init__(self, store: Store, turns: Turns, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._turns = turns
        self._clock = clock
        self._ids = ids

    async def browse(
        self,
        *,
        epic_id: str | None,
        status: str | None,
        tags: Collection[str],
        limit: int,
        offset: int,
    ) -> tuple[Sequence[Task], int]:
        """Return a page of the tasks that match, newest first, and how many there are."""
        query = partial(
            queries.list_tasks,
            epic_id=epic_id,
            status=status,
            tags=tags,
            limit=limit,
            offset=offset,
        )
        rows, total = await self._store.read(query)
        return [show_task(row) for row in rows], total

    async def get(self, task_id: str) -> Task:
        """Return one task.

        Raises:
            NotFound: no such task.
        """
        return show_task(await self._load(task_id))

    async def create(self, epic_id: str, fields: Mapping[str, Any]) -> Task:
        """Store a new task of an epic.

        Args:
            fields: those of the contract by name; what is absent gets its default. With the
                `dedupe_key` of a tool call, the same call again returns the first task.

        Raises:
            NotFound: no such epic.
            Invalid: it depends on something that is no task of the epic.
        """
        task_id = f"tk-{self._ids.hex(12)}"
        now = self._clock.now()
        wanted: Sequence[str] = fields.get("depends_on", ())
        depends_on = list(dict.fromkeys(wanted))
        values = {
            "tags": [],
            "notes": [],
            **fields,
            "id": task_id,
            "epic_id": epic_id,
            "depends_on": depends_on,
            "created_at": now,
            "updated_at": now,
        }

        def create(conn: Connection) -> tuple[TaskRow, bool]:
            key = fields.get("dedupe_key")
            first = None if key is None else queries.find_task_of_call(conn, key)
            if first is not None:
                return first, False
            get_epic(conn, epic_id)
            states = epic_books.load_states(conn, epic_id)
            strangers = find_strangers(wanted, states)
            if strangers:
                raise Invalid(problems=[_unknown(index, wanted[index]) for index in strangers])
            queries.insert_task(conn, {**values, "status": initial_status(depends_on, states)})
            epic_books.recount(conn, epic_id)
            return get_task(conn, task_id), True

        def tell(made: tuple[TaskRow, bool]) -> Iterator[News]:
            row, is_new = made
            if is_new:
                yield News(channel(epic_id), "task_created", event_data(show_task(row)))

        row, _ = await self._turns.write([channel(epic_id)], create, tell)
        return show_task(row)

    async def change(
        self,
        principal: Principal,
        task_id: str,
        fields: Mapping[str, Any],
        *,
        derive: Callable[[TaskRow], Mapping[str, Any]] = lambda _: {},
    ) -> Task:
        """Change the given *fields* of a task; none given changes and tells nothing.

        A task that becomes completed lets those go on that waited for nothing else.

        Args:
            derive: returns further fields that depend on the task as it is; may refuse.

        Raises:
            NotFound: no such task, or the execution that is to be linked is not the caller's.
        """
        epic_id = (await self._load(task_id)).epic_id

        def change(conn: Connection) -> _Changed:
            before = get_task(conn, task_id)
            _check_link(conn, principal, before, fields.get("execution_id"))
            return _change(conn, before, {**fields, **derive(before)}, now=now)

        now = self._clock.now()

        def tell(changed: _Changed) -> Iterator[News]:
            if changed.is_new:
                yield from tell_tasks([*changed.unblocked, changed.task])

        changed = await self._turns.write([channel(epic_id)], change, tell)
        return show_task(changed.task)

    async def delete(self, task_id: str) -> None:
        """Delete a task; those that waited for it only may go on.

        Raises:
            NotFound: no such task.
        """
        epic_id = (await self._load(task_id)).epic_id

        def tell(deleted: Sequence[_Deleted]) -> Iterator[News]:
            for one in deleted:
                yield from tell_tasks(one.unblocked)
                yield News(channel(one.epic_id), "task_deleted", {"id": task_id})

        delete = partial(_delete, ids=[task_id], now=self._clock.now())
        if not await self._turns.write([channel(epic_id)], delete, tell):
            raise NotFound(NOT_FOUND)

    async def delete_many(self, ids: Collection[str]) -> None:
        """Delete those of *ids* that exist, in one transaction."""
        there = await self._store.read(partial(queries.find_tasks, ids=ids))
        epics = {channel(row.epic_id) for row in there}
        if not epics:
            return

        def tell(deleted: Sequence[_Deleted]) -> Iterator[News]:
            for one in deleted:
                yield from tell_tasks(one.unblocked)
                yield News(channel(one.epic_id), "tasks_deleted", {"task_ids": list(one.ids)})

        await self._turns.write(epics, partial(_delete, ids=ids, now=self._clock.now()), tell)

    async def _load(self, task_id: str) -> TaskRow:
        return await self._store.read(partial(get_task, task_id=task_id))


def get_task(conn: Connection, task_id: str) -> TaskRow:
    """Return a task.

    Raises:
        NotFound: no such task.
    """
    row = queries.find_task(conn, task_id)
    if row is None:
        raise NotFound(NOT_FOUND)
    return row


def _check_link(
    conn: Connection, principal: Principal, task: TaskRow, execution_id: str | None
) -> None:
    """Let a task name an execution that is not there, but none that is somebody else's.

    Its output becomes the task's, and the epic's budget becomes its own.
    """
    if execution_id is None or execution_id == task.execution_id:
        return
    row = execution_queries.find(conn, execution_id)
    if row is not None and not can_see_execution(principal, row.workflow_owner_id, row.user_id):
        raise NotFound(NO_EXECUTION)


def _change(
    conn: Connection, before: TaskRow, fields: Mapping[str, Any], *, now: datetime
) -> _Changed:
    if not fields:
        return _Changed(before, is_new=False)
    task_id = before.id
    epic_books.lock(conn, before.epic_id)
    status = fields.get("status", before.status)
    values = {
        **fields,
        "updated_at": now,
        "started_at": before.started_at,
        "completed_at": completion_time(
            before.status, status, completed_at=before.completed_at, now=now
        ),
    }
    if status == "running" and before.started_at is None:
        values["started_at"] = now
    queries.update_tasks(conn, [task_id], values)
    unblocked: Sequence[str] = ()
    if status != before.status:
        if status == "completed":
            unblocked = epic_books.unblock_after(conn, before, now=now)
        epic_books.recount(conn, before.epic_id)
    return _Changed(get_task(conn, task_id), queries.find_tasks(conn, unblocked))


def _unknown(index: int, task_id: str) -> str:
    return f"body.depends_on[{index}]: task '{task_id}' does not exist in this epic"


def _delete(conn: Connection, ids: Collection[str], *, now: datetime) -> Sequence[_Deleted]:
    """Delete those of *ids* that exist, epic by epic."""
    by_epic: dict[str, list[str]] = {}
    for row in queries.find_tasks(conn, ids):
        by_epic.setdefault(row.epic_id, []).append(row.id)
    deleted = []
    for epic_id, gone in by_epic.items():
        unblocked = epic_books.delete_from_epic(conn, epic_id, gone, now=now)
        deleted.append(_Deleted(epic_id, gone, queries.find_tasks(conn, unblocked)))
    return deleted

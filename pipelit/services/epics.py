"""Epics: everybody sees and edits all of them. Contract: epics.md."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from pipelit.actors.epic_changes import Epic, Task, channel, show_epic, show_task, tell_tasks
from pipelit.actors.turns import News, Turns, event_data
from pipelit.clock import Clock, Ids
from pipelit.engine.tasks import completion_time
from pipelit.errors import NotFound
from pipelit.services.canvas import WORKFLOW_NOT_FOUND, can_read
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries import epics as queries
from pipelit.store.queries import tasks as task_queries
from pipelit.store.queries.epics import EpicRow
from pipelit.store.queries.tasks import TaskRow
from pipelit.store.queries.workflows import find_workflow_by_id

NOT_FOUND = "Epic not found."


class LinkedExecutions(Protocol):
    """What cancelling an epic asks of whoever runs executions."""

    async def cancel_each(self, principal: Principal, execution_ids: Collection[str]) -> None:
        """Stop those that *principal* may stop: a task may name any, that gives no right to it.

        Once begun it is not taken back.
        """


class _Changed(msgspec.Struct, frozen=True, kw_only=True):
    """An epic after a change, and the tasks that were cancelled with it."""

    epic: EpicRow
    cancelled: Sequence[TaskRow] = ()
    executions: Sequence[str] = ()
    """Those linked to the tasks that were running."""


class EpicsService:
    """What the contract's epics section lets people do."""

    def __init__(
        self,
        store: Store,
        turns: Turns,
        clock: Clock,
        ids: Ids,
        *,
        executions: LinkedExecutions,
    ) -> None:
        self._store = store
        self._turns = turns
        self._clock = clock
        self._ids = ids
        self._executions = executions

    async def browse(
        self, *, status: str | None, tags: Collection[str], limit: int, offset: int
    ) -> tuple[Sequence[Epic], int]:
        """Return a page of the epics that match, newest first, and how many there are."""
        query = partial(queries.list_epics, status=status, tags=tags, limit=limit, offset=offset)
        rows, total = await self._store.read(query)
        return [show_epic(row) for row in rows], total

    async def browse_tasks(
        self, epic_id: str, *, limit: int, offset: int
    ) -> tuple[Sequence[Task], int]:
        """Return a page of an epic's tasks, newest first, and how many there are.

        Raises:
            NotFound: no such epic.
        """

        def query(conn: Connection) -> tuple[Sequence[TaskRow], int]:
            get_epic(conn, epic_id)
            return task_queries.list_tasks(conn, epic_id=epic_id, limit=limit, offset=offset)

        rows, total = await self._store.read(query)
        return [show_task(row) for row in rows], total

    async def get(self, epic_id: str) -> Epic:
        """Return one epic.

        Raises:
            NotFound: no such epic.
        """
        return show_epic(await self._store.read(partial(get_epic, epic_id=epic_id)))

    async def create(self, principal: Principal, fields: Mapping[str, Any]) -> Epic:
        """Store a new epic of *principal*.

        Args:
            fields: those of the contract by name; what is absent gets its default. With the
                `dedupe_key` of a tool call, the same call again returns the first epic.

        Raises:
            NotFound: the workflow is not there or not visible.
        """
        epic_id = f"ep-{self._ids.hex(12)}"
        now = self._clock.now()
        values = {
            "tags": [],
            **_columns(fields),
            "id": epic_id,
            "user_id": principal.user_id,
            "created_at": now,
            "updated_at": now,
        }

        def create(conn: Connection) -> tuple[EpicRow, bool]:
            key = fields.get("dedupe_key")
            first = None if key is None else queries.find_epic_of_call(conn, key)
            if first is not None:
                return first, False
            _check_workflow(conn, principal, fields.get("workflow_id"))
            queries.insert_epic(conn, values)
            return get_epic(conn, epic_id), True

        def tell(made: tuple[EpicRow, bool]) -> Iterator[News]:
            row, is_new = made
            if is_new:
                yield News(channel(epic_id), "epic_created", event_data(show_epic(row)))

        row, _ = await self._turns.write([channel(epic_id)], create, tell)
        return show_epic(row)

    async def change(self, principal: Principal, epic_id: str, fields: Mapping[str, Any]) -> Epic:
        """Change the given *fields* of an epic; none given changes and tells nothing.

        An epic that becomes cancelled takes its unfinished tasks and their executions with it, as
        far as *principal* may cancel these.

        Raises:
            NotFound: no such epic.
        """
        now = self._clock.now()

        def change(conn: Connection) -> _Changed:
            row = get_epic(conn, epic_id)
            if not fields:
                return _Changed(epic=row)
            values = {**_columns(fields), "updated_at": now}
            if "status" in fields:
                values["completed_at"] = completion_time(
                    row.status, fields["status"], completed_at=row.completed_at, now=now
                )
            queries.update_epic(conn, epic_id, values)
            before: Sequence[TaskRow] = ()
            if fields.get("status") == "cancelled":
                before = task_queries.cancel_open_tasks(conn, epic_id, now=now)
            return _Changed(
                epic=get_epic(conn, epic_id),
                cancelled=[replace(row, **task_queries.cancelled(now)) for row in before],
                executions=[
                    row.execution_id
                    for row in before
                    if row.status == "running" and row.execution_id
                ],
            )

        def tell(changed: _Changed) -> Iterator[News]:
            if fields:
                yield from tell_tasks(changed.cancelled)
                epic = show_epic(changed.epic)
                yield News(channel(epic_id), "epic_updated", event_data(epic))

        changed = await self._turns.write([channel(epic_id)], change, tell)
        if changed.executions:
            await self._executions.cancel_each(principal, changed.executions)
        return show_epic(changed.epic)

    async def delete(self, epic_id: str) -> None:
        """Delete an epic with its tasks; executions linked to them go on.

        Raises:
            NotFound: no such epic.
        """
        if not await self._delete([epic_id]):
            raise NotFound(NOT_FOUND)

    async def delete_many(self, ids: Collection[str]) -> None:
        """Delete those of *ids* that exist, in one transaction."""
        if ids:
            await self._delete(ids)

    async def _delete(self, ids: Collection[str]) -> Sequence[str]:
        def tell(deleted: Sequence[str]) -> Iterator[News]:
            for epic_id in deleted:
                yield News(channel(epic_id), "epic_deleted", {"id": epic_id})

        delete = partial(queries.delete_epics, ids=ids)
        return await self._turns.write([channel(epic_id) for epic_id in ids], delete, tell)


def get_epic(conn: Connection, epic_id: str) -> EpicRow:
    """Return an epic.

    Raises:
        NotFound: no such epic.
    """
    row = queries.find_epic(conn, epic_id)
    if row is None:
        raise NotFound(NOT_FOUND)
    return row


def _check_workflow(conn: Connection, principal: Principal, workflow_id: int | None) -> None:
    if workflow_id is None:
        return
    workflow = find_workflow_by_id(conn, workflow_id)
    if workflow is None or not can_read(principal, workflow):
        raise NotFound(WORKFLOW_NOT_FOUND)


def _columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an epic as columns: money becomes micro-dollars."""
    columns = dict(fields)
    if "budget_usd" in columns:
        budget = columns.pop("budget_usd")
        columns["budget_micros"] = None if budget is None else round(budget * 1_000_000)
    return columns

"""Carries the beginning and the end of an execution over to its tasks, and to their epics.

What is to be done is a row, written with the end; it is done and marked in one transaction, so a
crash only delays it. Contract: engine.md §25.5, tasks.md "Linked execution ends".
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeAlias, assert_never

import msgspec
import structlog
from sqlalchemy import Connection

from pipelit.actors import paths
from pipelit.actors.epic_changes import channel, recount, show_epic, tell_tasks, unblock_after
from pipelit.actors.hub import Publisher
from pipelit.actors.runtime import Actor, ActorError, Message, System
from pipelit.actors.turns import News, Subjects, Turns, event_data
from pipelit.clock import Clock
from pipelit.engine.output import delivery_text
from pipelit.store import Store
from pipelit.store.queries import dispatches, epics, roll_up, tasks
from pipelit.store.queries.dispatches import LINK, ROLL_UP
from pipelit.store.queries.epics import EpicRow
from pipelit.store.queries.tasks import TaskRow

INTERVAL = 30.0
PAUSE = 0.02
"""Seconds in which ends are collected before the database is asked."""
PAGE = 100
MAX_TEXT = 500

log = structlog.get_logger(__name__)


class Look(Message, frozen=True):
    """An execution has ended, or begins to work on a task."""


class Work(Message, frozen=True):
    """Time to ask the database."""


class Round(Message, frozen=True):
    """Time to ask without being told: for what a crash or an error left behind."""


RollUpMessage: TypeAlias = Look | Work | Round


class _RolledUp(msgspec.Struct, frozen=True):
    """A task after its execution ended, those it let go on, and its epic."""

    task: TaskRow
    unblocked: Sequence[TaskRow]
    epic: EpicRow


def wake(system: System) -> None:
    """Let the tasks of an execution that has just ended know at once."""
    with suppress(ActorError):  # the next round finds it
        system.ref(paths.ROLL_UP).tell(Look())


class RollUp(Actor[RollUpMessage]):
    """One per server. On a shared database whoever comes first does it."""

    def __init__(self, store: Store, clock: Clock, subjects: Subjects) -> None:
        self._store = store
        self._clock = clock
        self._subjects = subjects
        self._is_told = False

    async def on_start(self) -> None:
        """Take up what was left behind."""
        publish = Publisher(self.ctx.system.ref(paths.HUB)).publish
        self._turns = Turns(self._store, publish, self._subjects)
        self.ctx.post(Round())

    async def receive(self, message: RollUpMessage) -> None:
        """Handle one message; see each message's docstring."""
        match message:
            case Look():
                if not self._is_told:
                    self._is_told = True
                    self.ctx.after(PAUSE, Work())
            case Work():
                self._is_told = False
                await self._work()
            case Round():
                await self._work()
                self.ctx.after(INTERVAL, Round())
            case _:
                assert_never(message)

    async def _work(self) -> None:
        try:
            for kind, work in ((LINK, self._link), (ROLL_UP, self._roll_up)):
                while due := await self._due(kind):
                    for execution_id in due:
                        await self._try(kind, execution_id, work)
        except Exception as error:  # noqa: BLE001  # the rows stay: the next round tries again
            log.warning("roll-ups postponed", error=str(error))

    async def _due(self, kind: str) -> list[str]:
        now = self._clock.now()
        return await self._store.read(
            lambda conn: dispatches.list_due(conn, kind, now=now, limit=PAGE)
        )

    async def _try(
        self, kind: str, execution_id: str, work: Callable[[str], Awaitable[None]]
    ) -> None:
        try:
            await work(execution_id)
        except Exception as error:  # must not keep the others: tried again later
            log.exception("roll-up failed", execution_id=execution_id, error=str(error))
            due_at = self._clock.now() + timedelta(seconds=INTERVAL)
            await self._store.write(
                lambda conn: dispatches.postpone(conn, kind, execution_id, due_at=due_at)
            )

    async def _link(self, execution_id: str) -> None:
        """Tell of the tasks that an execution runs; the links were stored with it."""
        linked = await self._store.read(lambda conn: roll_up.linked_tasks(conn, execution_id))
        now = self._clock.now()

        def unit(conn: Connection) -> list[_RolledUp]:
            if not dispatches.finish_once(conn, LINK, execution_id):
                return []
            found = roll_up.linked_tasks(conn, execution_id)
            return [_renew_epic(conn, task_id, epic_id, now=now) for task_id, epic_id in found]

        await self._turns.write([channel(epic_id) for _, epic_id in linked], unit, _tell)

    async def _roll_up(self, execution_id: str) -> None:
        linked = await self._store.read(lambda conn: roll_up.linked_tasks(conn, execution_id))
        now = self._clock.now()

        def unit(conn: Connection) -> list[_RolledUp]:
            if not dispatches.finish_once(conn, ROLL_UP, execution_id):
                return []
            ended = roll_up.find_ended(conn, execution_id)
            if ended is None:
                return []
            costs = roll_up.sum_costs(conn, execution_id)
            values = {**_outcome(ended), **msgspec.structs.asdict(costs), "updated_at": now}
            return [
                _settle(conn, task_id, values)
                for task_id, _ in roll_up.linked_tasks(conn, execution_id)
            ]

        await self._turns.write([channel(epic_id) for _, epic_id in linked], unit, _tell)


def _outcome(ended: roll_up.Ended) -> dict[str, Any]:
    """Return what the end of an execution sets in its tasks."""
    started_at = ended.started_at or ended.completed_at
    values: dict[str, Any] = {
        "status": ended.status,
        "completed_at": ended.completed_at,
        "duration_ms": (ended.completed_at - started_at) // timedelta(milliseconds=1),
    }
    if ended.status == "completed":
        values["result_summary"] = delivery_text(ended.final_output)[:MAX_TEXT]
    elif ended.status == "failed":
        values["error_message"] = ended.error_message[:MAX_TEXT]
    return values


def _settle(conn: Connection, task_id: str, values: dict[str, Any]) -> _RolledUp:
    """Change a task and everything that follows from it, in one transaction."""
    now = values["updated_at"]
    (before,) = tasks.find_tasks(conn, [task_id])
    tasks.update_tasks(conn, [task_id], values)
    unblocked: Sequence[str] = ()
    if values["status"] == "completed" and before.status != "completed":
        unblocked = unblock_after(conn, before, now=now)
    changed = _renew_epic(conn, task_id, before.epic_id, now=now)
    return msgspec.structs.replace(changed, unblocked=tasks.find_tasks(conn, unblocked))


def _renew_epic(conn: Connection, task_id: str, epic_id: str, *, now: datetime) -> _RolledUp:
    """Count the tasks of an epic again after one has changed."""
    recount(conn, epic_id)
    epics.update_epic(conn, epic_id, {"updated_at": now})
    (after,) = tasks.find_tasks(conn, [task_id])
    epic = epics.find_epic(conn, epic_id)
    if epic is None:
        raise LookupError(f"the epic of task {task_id} is gone: its tasks go with it")
    return _RolledUp(after, (), epic)


def _tell(changes: Sequence[_RolledUp]) -> Iterator[News]:
    for change in changes:
        yield from tell_tasks([*change.unblocked, change.task])
        data = event_data(show_epic(change.epic))
        yield News(channel(change.epic.id), "epic_updated", data)

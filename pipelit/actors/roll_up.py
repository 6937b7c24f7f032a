"""Tells of the tasks that an execution begins to work on, and of those it has left an outcome.

The rows were changed with the beginning and the end. That it is to be told is a row too, marked
when it is done, so a crash only delays it. An outcome that could not be written with the end is
written here. Contract: engine.md §7.4, §25.5, tasks.md "Linked execution ends".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TypeAlias, assert_never

import msgspec
import structlog
from sqlalchemy import Connection

from pipelit.actors import paths
from pipelit.actors.epic_changes import channel, show_epic, tell_tasks
from pipelit.actors.hub import Publisher
from pipelit.actors.runtime import Actor, ActorError, Message, System
from pipelit.actors.turns import News, Subjects, Turns, event_data
from pipelit.clock import Clock
from pipelit.store import Store
from pipelit.store.queries import dispatches, epic_books, epics, roll_up, tasks
from pipelit.store.queries.dispatches import LINK, ROLL_UP, ROLLED_UP
from pipelit.store.queries.epics import EpicRow
from pipelit.store.queries.roll_up import Settled
from pipelit.store.queries.tasks import TaskRow

INTERVAL = 30.0
PAUSE = 0.02
"""Seconds in which ends are collected before the database is asked."""
PAGE = 100

log = structlog.get_logger(__name__)


class Look(Message, frozen=True):
    """An execution has ended, or begins to work on a task."""


class Work(Message, frozen=True):
    """Time to ask the database."""


class Round(Message, frozen=True):
    """Time to ask without being told: for what a crash or an error left behind."""


RollUpMessage: TypeAlias = Look | Work | Round


class _Changed(msgspec.Struct, frozen=True):
    """A task that changed with its execution, those it let go on, and its epic."""

    task: TaskRow
    unblocked: Sequence[TaskRow]
    epic: EpicRow


Change: TypeAlias = Callable[[Connection, str, datetime], Sequence[Settled]]
"""Brings the tasks of an execution up to date, and returns which are to be told."""


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
            for kind, change in CHANGES.items():
                while due := await self._due(kind):
                    for execution_id in due:
                        await self._try(kind, execution_id, change)
        except Exception as error:  # noqa: BLE001  # the rows stay: the next round tries again
            log.warning("roll-ups postponed", error=str(error))

    async def _due(self, kind: str) -> list[str]:
        now = self._clock.now()
        return await self._store.read(
            lambda conn: dispatches.list_due(conn, kind, now=now, limit=PAGE)
        )

    async def _try(self, kind: str, execution_id: str, change: Change) -> None:
        try:
            await self._tell(kind, execution_id, change)
        except Exception as error:  # must not keep the others: tried again later
            log.exception("roll-up failed", execution_id=execution_id, error=str(error))
            due_at = self._clock.now() + timedelta(seconds=INTERVAL)
            await self._store.write(
                lambda conn: dispatches.postpone(conn, kind, execution_id, due_at=due_at)
            )

    async def _tell(self, kind: str, execution_id: str, change: Change) -> None:
        linked = await self._store.read(partial(roll_up.linked_tasks, execution_id=execution_id))
        now = self._clock.now()

        def unit(conn: Connection) -> list[_Changed]:
            if not dispatches.finish_once(conn, kind, execution_id):
                return []
            return [_look_at(conn, settled) for settled in change(conn, execution_id, now)]

        await self._turns.write([channel(epic_id) for _, epic_id in linked], unit, _news)


def _begin(conn: Connection, execution_id: str, now: datetime) -> Sequence[Settled]:
    """Count the epics of tasks again that an execution has begun to work on."""
    linked = roll_up.linked_tasks(conn, execution_id)
    for _, epic_id in linked:
        epic_books.recount(conn, epic_id)
        epics.update_epic(conn, epic_id, {"updated_at": now})
    return [Settled(task_id, epic_id) for task_id, epic_id in linked]


def _settle(conn: Connection, execution_id: str, now: datetime) -> Sequence[Settled]:
    return roll_up.settle(conn, execution_id, now=now)


def _settled(conn: Connection, execution_id: str, _now: datetime) -> Sequence[Settled]:
    return roll_up.find_settled(conn, execution_id)


CHANGES: Mapping[str, Change] = {LINK: _begin, ROLL_UP: _settle, ROLLED_UP: _settled}
"""What is told, in this order: {kind: what is still to be changed for it}."""


def _look_at(conn: Connection, settled: Settled) -> _Changed:
    (task,) = tasks.find_tasks(conn, [settled.task_id])
    epic = epics.find_epic(conn, settled.epic_id)
    if epic is None:
        raise LookupError(f"the epic of task {task.id} is gone: its tasks go with it")
    return _Changed(task, tasks.find_tasks(conn, settled.unblocked), epic)


def _news(changes: Sequence[_Changed]) -> Iterator[News]:
    for change in changes:
        yield from tell_tasks([*change.unblocked, change.task])
        data = event_data(show_epic(change.epic))
        yield News(channel(change.epic.id), "epic_updated", data)

"""How the tasks of an epic depend on each other. Pure. Contract: tasks.md "Rules"."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

TaskStatus: TypeAlias = Literal["pending", "blocked", "running", "completed", "failed", "cancelled"]
EpicStatus: TypeAlias = Literal["planning", "active", "paused", "completed", "failed", "cancelled"]

FINISHED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""Statuses of tasks and epics that have a time of completion."""


class TaskState(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules need to know of a task."""

    id: str
    status: str
    depends_on: Sequence[str] = ()
    """Tasks of the same epic, none of them depending on this one."""


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What the tasks that stay need after others are gone."""

    depends_on: Mapping[str, Sequence[str]]
    """Task id → what it still depends on, for those that depended on one that is gone."""
    unblocked: Sequence[str]
    """Those of them that nothing holds back any more."""


def find_strangers(depends_on: Sequence[str], states: Sequence[TaskState]) -> Sequence[int]:
    """Return the positions in *depends_on* that name no task of the epic."""
    known = {state.id for state in states}
    return [index for index, task_id in enumerate(depends_on) if task_id not in known]


def initial_status(depends_on: Collection[str], states: Sequence[TaskState]) -> TaskStatus:
    """Return the status of a new task: blocked while a dependency is not completed."""
    return "pending" if _completed(states).issuperset(depends_on) else "blocked"


def unblocked_by(completed: str, states: Sequence[TaskState]) -> Sequence[str]:
    """Return the tasks that may go on because *completed* has become completed.

    *states* are those after the change, in the order in which the answer is wanted.
    """
    done = _completed(states)
    return [
        state.id
        for state in states
        if state.status == "blocked"
        and completed in state.depends_on
        and done.issuperset(state.depends_on)
    ]


def forget(gone: Collection[str], states: Sequence[TaskState]) -> Forgotten:
    """Take the tasks in *gone* out of what the others depend on."""
    gone = frozenset(gone)
    staying = [state for state in states if state.id not in gone]
    depends_on = {
        state.id: [task_id for task_id in state.depends_on if task_id not in gone]
        for state in staying
        if not gone.isdisjoint(state.depends_on)
    }
    done = _completed(staying)
    return Forgotten(
        depends_on=depends_on,
        unblocked=[
            state.id
            for state in staying
            if state.status == "blocked"
            and state.id in depends_on
            and done.issuperset(depends_on[state.id])
        ],
    )


def completion_time(
    old: str, new: str, *, completed_at: datetime | None, now: datetime
) -> datetime | None:
    """Return when a task or epic was completed, after its status went from *old* to *new*."""
    if new not in FINISHED:
        return None
    return completed_at if new == old else now


def _completed(states: Sequence[TaskState]) -> frozenset[str]:
    return frozenset(state.id for state in states if state.status == "completed")

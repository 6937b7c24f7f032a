"""The rules of tasks hold for every epic that can be built. Contract: tasks.md, epics.md."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipelit.engine.tasks import (
    FINISHED,
    TaskState,
    completion_time,
    find_strangers,
    forget,
    initial_status,
    unblocked_by,
)

STATUSES = ("pending", "blocked", "running", "completed", "failed", "cancelled")
THEN, NOW = datetime(2026, 2, 3, tzinfo=UTC), datetime(2026, 2, 4, tzinfo=UTC)


@st.composite
def epics(draw: st.DrawFn) -> list[TaskState]:
    """Draw an epic: each task depends on some of those made before it."""
    states: list[TaskState] = []
    for number in range(draw(st.integers(0, 8))):
        earlier = [state.id for state in states]
        depends_on = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        states.append(
            TaskState(
                id=f"tk-{number}",
                status=draw(st.sampled_from(STATUSES)),
                depends_on=depends_on,
            )
        )
    return states


some_epic = epics()
filled_epic = epics().filter(bool)


def status_of(states: Sequence[TaskState]) -> dict[str, str]:
    return {state.id: state.status for state in states}


@given(some_epic, st.data())
def test_a_new_task_is_blocked_exactly_while_something_is_open(
    states: list[TaskState], data: st.DataObject
) -> None:
    """`pending` if every dependency is completed, `blocked` if any is not."""
    ids = [state.id for state in states]
    depends_on = data.draw(st.lists(st.sampled_from(ids))) if ids else []

    status = initial_status(depends_on, states)

    is_open = any(status_of(states)[task_id] != "completed" for task_id in depends_on)
    assert status == ("blocked" if is_open else "pending")


@given(some_epic, st.lists(st.sampled_from([f"tk-{number}" for number in range(10)])))
def test_strangers_are_named_by_place(states: list[TaskState], depends_on: list[str]) -> None:
    """Exactly the places whose task is not in the epic."""
    known = status_of(states)

    found = find_strangers(depends_on, states)

    assert [depends_on[place] in known for place in found] == [False] * len(found)
    assert len(found) == sum(task_id not in known for task_id in depends_on)


@given(filled_epic, st.data())
def test_completion_unblocks_exactly_those_it_was_the_last_for(
    states: list[TaskState], data: st.DataObject
) -> None:
    """A blocked dependent with everything completed goes on; nobody else is touched."""
    index = data.draw(st.integers(0, len(states) - 1))
    states[index] = replace(states[index], status="completed")
    status = status_of(states)

    unblocked = unblocked_by(states[index].id, states)

    assert unblocked == [
        state.id
        for state in states
        if state.status == "blocked"
        and states[index].id in state.depends_on
        and all(status[task_id] == "completed" for task_id in state.depends_on)
    ]


@given(filled_epic)
def test_completing_all_in_order_blocks_nobody(states: list[TaskState]) -> None:
    """An epic whose statuses follow the rules from the start is worked off to the last task."""
    board: list[TaskState] = []
    for state in states:
        board.append(replace(state, status=initial_status(state.depends_on, board)))

    for index, state in enumerate(states):
        assert board[index].status == "pending"
        board[index] = replace(board[index], status="completed")
        going = unblocked_by(state.id, board)
        board = [replace(one, status="pending") if one.id in going else one for one in board]

    assert {one.status for one in board} == {"completed"}


@given(some_epic, st.sets(st.sampled_from([f"tk-{number}" for number in range(10)])))
def test_the_deleted_are_forgotten_everywhere(states: list[TaskState], gone: set[str]) -> None:
    """No id of theirs stays; of those that waited for one, who is free now goes on."""
    left = forget(gone, states)

    staying = {state.id: state for state in states if state.id not in gone}
    for task_id, depends_on in left.depends_on.items():
        assert set(depends_on) == set(staying[task_id].depends_on) - gone
        assert gone & set(staying[task_id].depends_on)
    for state in staying.values():
        waits_for = left.depends_on.get(state.id, state.depends_on)
        assert not gone & set(waits_for)
        free = all(staying[task_id].status == "completed" for task_id in waits_for)
        touched = state.id in left.depends_on
        assert (state.id in left.unblocked) == (state.status == "blocked" and touched and free)


@given(st.lists(st.sampled_from(STATUSES), min_size=2))
def test_only_the_finished_have_a_time_of_completion(statuses: list[str]) -> None:
    """Set on becoming finished, kept while it stays so, gone afterwards."""
    completed_at = None if statuses[0] not in FINISHED else THEN
    for old, new in pairwise(statuses):
        before = completed_at
        completed_at = completion_time(old, new, completed_at=before, now=NOW)

        assert (completed_at is None) == (new not in FINISHED)
        if new in FINISHED:
            assert completed_at == (before if new == old else NOW)

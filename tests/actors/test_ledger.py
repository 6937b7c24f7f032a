"""Steps are published in the order of their numbers, whatever order their commits wake in."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.hub import Announcement, Audience
from pipelit.actors.ledger import Ledger, Outlet
from pipelit.store import CommitUncertain, Store
from pipelit.store.queries.children import FamilyStep
from pipelit.store.queries.executions import StoredEvent
from pipelit.store.queries.fencing import Fenced
from pipelit.store.queries.journal import Owner, Step, Written

AUDIENCE = Audience(1, "flow", 1, 2)
STEP = Step(
    execution_id="e1",
    owner=Owner("server", 1),
    now=datetime(2026, 1, 1, tzinfo=UTC),
    active_us=0,
)


class Commits:
    """A store whose waiters a test lets go."""

    def __init__(self, batches: Sequence[Sequence[StoredEvent]]) -> None:
        self.batches = list(batches)
        self.done = [trio.Event() for _ in batches]
        self.taken = 0
        self.refused = False
        self.uncertain = set[int]()

    async def write(self, unit: Any, key: str, *, patient: bool) -> FamilyStep:
        assert patient
        number = self.taken
        self.taken += 1
        await self.done[number].wait()
        if self.refused:
            raise Fenced(key)
        if number in self.uncertain:
            raise CommitUncertain("the connection broke")
        return FamilyStep(Written(tuple(self.batches[number])))


def events(first: int, count: int) -> list[StoredEvent]:
    return [StoredEvent(first + n, "node_status", 1.5, {"n": first + n}) for n in range(count)]


def ledger(commits: Commits, heard: list[Announcement], *, last_seq: int = 0) -> Ledger:
    own = Outlet("e1", AUDIENCE, heard.append, last_seq=last_seq)
    return Ledger("e1", own, store=cast("Store", commits))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.randoms())
def test_events_leave_in_the_order_of_their_numbers(counts: list[int], chance: Any) -> None:
    """Each once, after its commit; a step without events holds back nothing."""
    heard: list[Announcement] = []

    async def main() -> None:
        batches, first = [], 5
        for count in counts:
            batches.append(events(first, count))
            first += count
        commits = Commits(batches)
        book = ledger(commits, heard, last_seq=4)
        async with trio.open_nursery() as nursery:
            for _ in counts:
                nursery.start_soon(book.write, STEP)
            await trio.testing.wait_all_tasks_blocked()
            order = list(commits.done)
            chance.shuffle(order)
            for done in order:
                done.set()
                await trio.testing.wait_all_tasks_blocked()

    trio.run(main)

    assert [said.seq for said in heard] == list(range(5, 5 + sum(counts)))
    assert all(said.timestamp == 1.5 and said.audience == AUDIENCE for said in heard)


async def test_a_step_that_was_refused_publishes_nothing() -> None:
    """Its events have no numbers."""
    heard: list[Announcement] = []
    commits = Commits([events(1, 2)])
    commits.refused = True
    commits.done[0].set()

    with pytest.raises(Fenced):
        await ledger(commits, heard).write(STEP)

    assert heard == []


async def test_a_commit_nobody_knows_about_holds_back_nothing() -> None:
    """Its numbers may be taken; what comes after them is published all the same, in order."""
    heard: list[Announcement] = []
    commits = Commits([events(1, 1), events(2, 2), events(4, 1), events(5, 1)])
    commits.uncertain = {1}
    book = ledger(commits, heard)

    async def uncertain() -> None:
        with pytest.raises(CommitUncertain):
            await book.write(STEP)

    async with trio.open_nursery() as nursery:
        for write in (lambda: book.write(STEP), uncertain, lambda: book.write(STEP)):
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
        for number in (2, 1, 0):
            commits.done[number].set()
            await trio.testing.wait_all_tasks_blocked()
    commits.done[3].set()
    await book.write(STEP)

    assert [said.seq for said in heard] == [1, 4, 5]


def test_a_piece_of_an_answer_needs_no_commit() -> None:
    """And has neither number nor time."""
    heard: list[Announcement] = []

    ledger(Commits([]), heard).delta("ag", "Hel", 0)

    (said,) = heard
    assert (said.type, said.seq, said.timestamp) == ("chat_delta", None, None)
    assert said.data == {"execution_id": "e1", "node_id": "ag", "text": "Hel", "index": 0}

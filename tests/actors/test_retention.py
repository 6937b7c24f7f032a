"""What was kept for long enough goes, in small steps. Contract: operations.md §6."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import trio
from sqlalchemy import URL, Connection, func, insert, select, text
from trio.testing import MockClock

from pipelit.actors import retention
from pipelit.actors.retention import Retention, Rules
from pipelit.actors.runtime import ChildSpec
from pipelit.clock import Clock, TrioClock
from pipelit.store import StorageUnavailable, schema
from pipelit.store.queries.executions import Idempotency
from tests.kit.flows import ADA, START
from tests.kit.tree import Tree, add_people, open_tree

EVERY = 10.0
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class Wall(Clock):
    """Wall time that jumps when a test says so: days of Trio's time would take too long."""

    def __init__(self) -> None:
        self._trio = TrioClock(START)
        self.jump = timedelta(0)

    def now(self) -> datetime:
        return self._trio.now() + self.jump


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The wall clock of a server that sweeps every ten seconds."""
    monkeypatch.setattr(retention, "INTERVAL", EVERY)
    return Wall()


@asynccontextmanager
async def keeping(
    url: URL, clock: MockClock, wall: Wall, rules: Rules, **options: Any
) -> AsyncIterator[Tree]:
    """Run a server with a workflow, that keeps what *rules* say."""

    def more(store: Any, *_: Any) -> tuple[ChildSpec, ...]:
        def start() -> Retention:
            return Retention(store, wall, rules, **options)

        return (ChildSpec(id="retention", kind="retention", start=start),)

    async with open_tree(url, clock, {}, wall=wall, more=more) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")
        yield tree


async def left(tree: Tree, table: Any = schema.executions) -> list[Any]:
    """Return the first column of what is left."""
    column = next(iter(table.c))
    return list(await tree.store.read(lambda conn: conn.scalars(select(column)).all()))


async def sweep() -> None:
    """Let everything be removed that can be."""
    await trio.sleep(EVERY + 5)


async def test_executions_go_by_age(store_url: URL, clock: MockClock, wall: Wall) -> None:
    """Those that ended earlier go, with all that is only theirs."""
    async with keeping(store_url, clock, wall, Rules(days=2)) as tree:
        old = [await tree.run() for _ in range(2)]
        wall.jump += 1.5 * DAY
        young = await tree.run()
        assert set(await left(tree)) == {*old, young}

        wall.jump += DAY
        await sweep()
        assert await left(tree) == [young]
        for table in (schema.journal, schema.execution_logs, schema.execution_events):
            owners = select(table.c.execution_id).distinct()
            assert await tree.store.read(lambda c, q=owners: c.scalars(q).all()) == [young]


async def test_the_newest_are_kept_by_number(store_url: URL, clock: MockClock, wall: Wall) -> None:
    async with keeping(store_url, clock, wall, Rules(most=3)) as tree:
        runs = [await tree.run() for _ in range(7)]
        await sweep()

        assert set(await left(tree)) == set(runs[-3:])


@pytest.mark.parametrize("rules", [Rules(), Rules(days=10**9), Rules(most=10**9)])
async def test_by_default_everything_is_kept(
    store_url: URL, clock: MockClock, wall: Wall, rules: Rules
) -> None:
    async with keeping(store_url, clock, wall, rules) as tree:
        runs = [await tree.run() for _ in range(3)]
        wall.jump += 3 * DAY
        await sweep()

        assert set(await left(tree)) == set(runs)


@pytest.mark.parametrize("status", ["pending", "running", "interrupted"])
async def test_what_has_not_ended_stays_and_so_do_its_children(
    store_url: URL, clock: MockClock, wall: Wall, status: str
) -> None:
    """However old they are; a child goes when its parent has ended."""
    async with keeping(store_url, clock, wall, Rules(days=1, most=1)) as tree:
        parent, child, last = [await tree.run() for _ in range(3)]
        await tree.change(parent, status=status, completed_at=None, owner="other", epoch=9)
        await tree.change(child, parent_execution_id=parent)
        await sweep()
        assert set(await left(tree)) == {parent, child, last}

        ended = START - timedelta(seconds=1)
        await tree.change(parent, status="completed", completed_at=ended, owner=None, epoch=None)
        await sweep()
        assert await left(tree) == [last]


async def test_what_counts_for_one_that_goes_on_stays(
    store_url: URL, clock: MockClock, wall: Wall
) -> None:
    """All below it, and all that it retries: a budget would get back what they used."""
    async with keeping(store_url, clock, wall, Rules(most=1)) as tree:
        first, part, retry, root, child, leaf, last = [await tree.run() for _ in range(7)]
        await tree.change(part, parent_execution_id=first)
        await tree.change(retry, retry_of=first)
        await tree.change(root, retry_of=retry, status="running", completed_at=None, owner="o")
        await tree.change(child, parent_execution_id=root)
        await tree.change(leaf, parent_execution_id=child)
        await sweep()
        assert set(await left(tree)) == {first, part, retry, root, child, leaf, last}

        ended = START - timedelta(seconds=1)
        await tree.change(root, status="completed", completed_at=ended, owner=None)
        await sweep()
        assert await left(tree) == [last]


async def test_what_is_still_to_be_told_stays(store_url: URL, clock: MockClock, wall: Wall) -> None:
    """A delivery that is due, an outcome that a schedule has not recorded."""

    def promise(conn: Connection) -> None:
        row = {"execution_id": telling, "kind": "delivery", "due_at": START}
        conn.execute(insert(schema.dispatches), row)
        job = {"id": "job", "name": "job", "workflow_id": 1, "user_id": ADA, "status": "paused"}
        job |= {"interval_seconds": 60, "created_at": START, "updated_at": START}
        conn.execute(insert(schema.schedules), job)
        fire = {"schedule_id": "job", "nominal_time": START, "fired_at": START}
        conn.execute(insert(schema.schedule_fires), fire | {"execution_id": ticked})

    async with keeping(store_url, clock, wall, Rules(days=1)) as tree:
        telling, ticked, _ = [await tree.run() for _ in range(3)]
        await tree.change(ticked, schedule_id="job")
        await tree.store.write(promise)
        wall.jump += 40 * DAY
        await sweep()

        assert set(await left(tree)) == {telling, ticked}
        assert await left(tree, schema.schedule_fires) == ["job"]


async def test_idempotency_keys_go_after_a_day_and_ticks_after_thirty(
    store_url: URL, clock: MockClock, wall: Wall
) -> None:
    """Whatever is kept of executions."""

    def tick(conn: Connection) -> None:
        job = {"id": "job", "name": "job", "workflow_id": 1, "user_id": ADA, "status": "paused"}
        job |= {"interval_seconds": 60, "created_at": START, "updated_at": START}
        conn.execute(insert(schema.schedules), job)
        fires = [
            {"schedule_id": "job", "nominal_time": START + timedelta(days=day)} for day in (0, 20)
        ]
        rows = [fire | {"fired_at": START, "outcome": "completed"} for fire in fires]
        conn.execute(insert(schema.schedule_fires), rows)

    key = Idempotency(key="k", fingerprint="f", status=200, body={})
    async with keeping(store_url, clock, wall, Rules()) as tree:
        await tree.post(idempotency=key)
        await tree.store.write(tick)
        wall.jump += DAY - HOUR
        await sweep()
        assert len(await left(tree, schema.idempotency_keys)) == 1
        wall.jump += 2 * HOUR
        await sweep()
        assert await left(tree, schema.idempotency_keys) == []
        wall.jump += 28 * DAY
        await sweep()
        assert len(await left(tree, schema.schedule_fires)) == 2
        wall.jump += 2 * DAY
        await sweep()
        assert len(await left(tree, schema.schedule_fires)) == 1


async def many(tree: Tree, count: int) -> None:
    """Store ended executions with a journal record of 10 kB each."""
    runs = [
        {"id": f"x{number}", "created_seq": 1000 + number, "workflow_id": 1, "thread_id": "t"}
        | {"status": "completed", "source": "manual", "trigger": {}, "limit_seconds": 900}
        | {"created_at": START, "completed_at": START, "last_activity_at": START}
        for number in range(count)
    ]
    records = [
        {"execution_id": run["id"], "position": 1, "node_id": "a", "iteration": "0"}
        | {"kind": "result", "record": {"text": "x" * 10_000}}
        for run in runs
    ]

    def store(conn: Connection) -> None:
        conn.execute(insert(schema.executions), runs)
        conn.execute(insert(schema.journal), records)

    await tree.store.write(store)


async def test_the_disk_gets_its_space_back_in_small_steps(
    store_url: URL, clock: MockClock, wall: Wall
) -> None:
    """No transaction deletes more than a hundred executions; in the end no page is free."""
    counts: list[int] = []

    def free(conn: Connection) -> tuple[int, int]:
        found = [
            conn.execute(text(f"PRAGMA {n}")).scalar_one() for n in ("freelist_count", "page_count")
        ]
        return found[0], found[1]

    async def watch(tree: Tree) -> None:
        number = select(func.count()).select_from(schema.executions)
        while True:
            counts.append(await tree.store.read(lambda conn: conn.scalar(number)) or 0)
            await trio.sleep(0.05)

    async with keeping(store_url, clock, wall, Rules(days=1)) as tree:
        await many(tree, 450)
        _, before = await tree.store.read(free)
        wall.jump += 2 * DAY
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, tree)
            await sweep()
            nursery.cancel_scope.cancel()
        left_free, now = await tree.store.read(free)

    steps = {one - other for one, other in pairwise(counts)}
    assert counts[-1] == 0
    assert max(steps) <= 100
    assert left_free == 0
    assert now < before / 3


async def test_a_step_ends_when_its_time_is_over(
    store_url: URL, clock: MockClock, wall: Wall
) -> None:
    """A slow disk gets smaller transactions, and in the end everything is gone, too."""
    ticks = iter(range(10**6))

    async with keeping(store_url, clock, wall, Rules(days=1), timer=lambda: next(ticks)) as tree:
        await many(tree, 5)
        wall.jump += 2 * DAY
        before = tree.store.statistics().units
        await sweep()

        assert await left(tree) == []
        assert tree.store.statistics().units - before >= 5


async def test_storage_that_does_not_answer_is_tried_again(
    store_url: URL, clock: MockClock, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor lives, and the next hour sees to it."""
    async with keeping(store_url, clock, wall, Rules(days=1)) as tree:
        await tree.run()
        write = tree.store.write

        async def refuse(*_: Any, **__: Any) -> None:
            await trio.lowlevel.checkpoint()
            raise StorageUnavailable

        monkeypatch.setattr(tree.store, "write", refuse)
        wall.jump += 2 * DAY
        await sweep()
        assert len(await left(tree)) == 1
        monkeypatch.setattr(tree.store, "write", write)
        await sweep()

        assert await left(tree) == []
        assert not tree.system.records(event="actor_crashed")

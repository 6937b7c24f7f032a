"""What ended executions mean for tasks and epics. Contract: engine.md §25.5."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import trio
from sqlalchemy import Connection, insert, select, text, update

from pipelit.actors.hub import Copy, Hub
from pipelit.actors.roll_up import INTERVAL, Look, RollUp
from pipelit.actors.runtime import ActorRef, ChildSpec
from pipelit.actors.runtime.testing import open_kit
from pipelit.actors.turns import Subjects
from pipelit.nodes.base import Component
from pipelit.store import schema
from pipelit.store.queries import executions, roll_up
from tests.kit.tree import START, Tree


@pytest.fixture
def components() -> dict[str, Component]:
    """No node runs here: executions are written as their actors leave them."""
    return {}


@asynccontextmanager
async def rolling_up(tree: Tree) -> AsyncIterator[ActorRef[Any]]:
    """Roll up for the length of the block; what is told is heard on the tree's board."""
    hub = ChildSpec(id="hub", kind="hub", start=lambda: Hub(tree.board, tree.store, tree.clock))
    async with open_kit([hub]) as kit:
        yield kit.spawn(lambda: RollUp(tree.store, tree.clock, Subjects()))


async def link(tree: Tree, execution_id: str | None, name: str = "task", **values: Any) -> str:
    """Make a task of the only epic, linked to an execution."""

    def write(conn: Connection) -> None:
        same = {"title": "T", "tags": [], "created_at": START, "updated_at": START}
        if conn.scalar(select(schema.epics.c.id)) is None:
            conn.execute(insert(schema.epics).values(id="ep-1", **same))
        row = {"id": name, "epic_id": "ep-1", "depends_on": [], "notes": [], "status": "running"}
        row |= {"execution_id": execution_id}
        conn.execute(insert(schema.tasks).values(**row | same | values))

    await tree.store.write(write)
    return name


async def run(tree: Tree, workflow_id: int, tokens: int, **values: Any) -> str:
    """Write an execution that has used so many tokens and still runs."""
    new = tree.new(workflow_id)
    columns = {"status": "running", "started_at": START, "total_tokens": tokens} | values
    columns |= {"cost_micros": tokens * 10, "llm_calls": 1, "tool_invocations": 2}
    here = schema.executions.c.id == new.id

    def write(conn: Connection) -> None:
        executions.create(conn, new)
        conn.execute(update(schema.executions).where(here).values(**columns))

    await tree.store.write(write)
    return new.id


async def end(tree: Tree, execution_id: str, status: str = "completed", **values: Any) -> None:
    """End an execution as its last step does."""
    now = START + timedelta(seconds=2.5)
    await trio.sleep(max(0.0, (now - tree.clock.now()).total_seconds()))
    ended = {"status": status, "completed_at": now, **values}
    here = schema.executions.c.id == execution_id

    def write(conn: Connection) -> None:
        conn.execute(update(schema.executions).where(here).values(**ended))
        roll_up.carry_over(conn, execution_id, now=now)

    await tree.store.write(write)


async def read(tree: Tree, table: Any, key: str) -> Any:
    return await tree.store.read(
        lambda conn: conn.execute(select(table).where(table.c.id == key)).one()
    )


async def test_a_task_counts_what_nobody_else_counts(tree: Tree) -> None:
    """Itself, descendants without a task, and both of what it retries; each once."""
    flow = await tree.workflow("t > a")
    first = await run(tree, flow, 1)
    await run(tree, flow, 10, parent_execution_id=first)
    retry = await run(tree, flow, 100, retry_of=first)
    child = await run(tree, flow, 1000, parent_execution_id=retry)
    await run(tree, flow, 10_000, parent_execution_id=child)
    own = await run(tree, flow, 100_000, parent_execution_id=retry)
    await run(tree, flow, 1_000_000, parent_execution_id=own)
    await run(tree, flow, 10_000_000)
    task = await link(tree, retry)
    await link(tree, own, "other")
    await end(tree, retry, final_output={"output": "y" * 600})

    async with rolling_up(tree):
        await trio.sleep(1)

    done = await read(tree, schema.tasks, task)
    assert (done.status, done.result_summary) == ("completed", "y" * 500)
    assert (done.actual_tokens, done.actual_micros) == (11_111, 111_110)
    assert (done.llm_calls, done.tool_invocations) == (5, 10)
    assert done.duration_ms == 2500
    assert done.completed_at == START + timedelta(seconds=2.5)
    epic = await read(tree, schema.epics, "ep-1")
    assert (epic.spent_tokens, epic.completed_tasks, epic.total_tasks) == (11_111, 1, 2)


async def test_sums_are_recomputed_never_added(tree: Tree) -> None:
    """A roll-up that is repeated changes nothing."""
    execution_id = await run(tree, await tree.workflow("t > a"), 7)
    await link(tree, execution_id)
    await end(tree, execution_id)

    for _ in range(2):
        async with rolling_up(tree):
            await trio.sleep(1)
        reopened = update(schema.dispatches).values(done=False, due_at=START)
        await tree.store.write(lambda conn, redo=reopened: conn.execute(redo).rowcount)

    assert (await read(tree, schema.epics, "ep-1")).spent_tokens == 7


async def test_every_task_that_is_linked_is_told(tree: Tree) -> None:
    """Two may name one execution; a cancelled one that never began took no time."""
    execution_id = await run(tree, await tree.workflow("t > a"), 0, started_at=None)
    tasks = [await link(tree, execution_id, name, status="pending") for name in ("a", "b")]
    await end(tree, execution_id, "cancelled")

    async with rolling_up(tree):
        await trio.sleep(1)

    for task in tasks:
        row = await read(tree, schema.tasks, task)
        assert (row.status, row.duration_ms) == ("cancelled", 0)
        assert (row.result_summary, row.error_message) == (None, None)


async def test_an_unlinked_execution_leaves_nothing_to_do(tree: Tree) -> None:
    """No row is written for it."""
    await end(tree, await run(tree, await tree.workflow("t > a"), 1))

    count = await tree.store.read(lambda conn: len(conn.execute(select(schema.dispatches)).all()))
    assert count == 0


async def test_an_end_is_told_at_once_and_otherwise_later(tree: Tree) -> None:
    """At once after `Look`; within the interval when the word was lost."""
    flow = await tree.workflow("t > a")
    told, untold = await run(tree, flow, 1), await run(tree, flow, 1)
    await link(tree, told, "told")
    await link(tree, untold, "untold")
    heard = tree.listen("epic:ep-1")

    async with rolling_up(tree) as actor:
        await trio.sleep(1)
        await end(tree, told)
        actor.tell(Look())
        await trio.sleep(0.1)
        await end(tree, untold)
        await trio.sleep(0.1)
        before = [told_of(copy)["id"] for copy in heard]
        await trio.sleep(INTERVAL)

    assert before == ["told", "ep-1"]
    assert [(copy.type, told_of(copy)["id"]) for copy in heard] == [
        ("task_updated", "told"),
        ("epic_updated", "ep-1"),
        ("task_updated", "untold"),
        ("epic_updated", "ep-1"),
    ]


async def test_who_hears_of_an_end_reads_new_sums(tree: Tree) -> None:
    """The outcome is stored together with the terminal event, also without a roll-up actor."""
    flow = await tree.workflow("t > a")
    execution_id = await tree.pending(flow)
    await link(tree, execution_id)

    await tree.run_stored(execution_id)

    task, epic = await read(tree, schema.tasks, "task"), await read(tree, schema.epics, "ep-1")
    ended = await tree.row(execution_id)
    assert (task.status, task.completed_at) == ("completed", ended.completed_at)
    assert epic.completed_tasks == 1


async def test_a_task_that_goes_on_is_told_before_the_one_it_waited_for(tree: Tree) -> None:
    """Changed with the end, told later; one that is still blocked is not told."""
    execution_id = await run(tree, await tree.workflow("t > a"), 1)
    await link(tree, execution_id, "first")
    await link(tree, None, "second", status="blocked", depends_on=["first"])
    await link(tree, None, "third", status="blocked", depends_on=["first", "second"])
    heard = tree.listen("epic:ep-1")
    await end(tree, execution_id)

    async with rolling_up(tree):
        await trio.sleep(1)

    told = [(of["id"], of["status"]) for of in map(told_of, heard[:-1])]
    assert told == [("second", "pending"), ("first", "completed")]
    assert (await read(tree, schema.tasks, "third")).status == "blocked"


async def test_a_roll_up_that_fails_keeps_no_end_and_no_other_and_is_repeated(tree: Tree) -> None:
    """What cannot be read as a task now can be after the repair."""
    flow = await tree.workflow("t > a")
    ids = {name: await run(tree, flow, 1) for name in ("bad", "good")}
    for name, execution_id in ids.items():
        await link(tree, execution_id, name)
    await write_notes(tree, "bad", "{")
    for execution_id in ids.values():
        await end(tree, execution_id)

    async with rolling_up(tree):
        await trio.sleep(1)
        good = await read(tree, schema.tasks, "good")
        await write_notes(tree, "bad", "[]")
        before = await read(tree, schema.tasks, "bad")
        await trio.sleep(2 * INTERVAL)

    assert await tree.status(ids["bad"]) == "completed"
    assert (before.status, good.status) == ("running", "completed")
    assert (await read(tree, schema.tasks, "bad")).status == "completed"


def told_of(copy: Copy) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(copy.json)["data"]
    return data


async def write_notes(tree: Tree, task: str, json: str) -> None:
    statement = text("UPDATE tasks SET notes = :json WHERE id = :id")
    values = {"json": json, "id": task}
    await tree.store.write(lambda conn: conn.execute(statement, values).rowcount)

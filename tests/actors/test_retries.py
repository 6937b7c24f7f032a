"""A retry begins with what it takes over, whatever happens to its server. engine.md §10.8."""

from typing import Any

import msgspec
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall, NodeError
from pipelit.store.queries import executions
from pipelit.store.queries.retries import find_original
from tests.kit.flows import Gate, leave_behind
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]


async def fail(call: NodeCall) -> Outcome:
    await trio.lowlevel.checkpoint()
    raise NodeError("no", code="Odd", retryable=False)


async def retry(tree: Tree, execution_id: str, **more: Any) -> str:
    """Store the retry of an execution."""
    original = await tree.store.read(lambda conn: find_original(conn, execution_id))
    assert original is not None
    new = msgspec.structs.replace(
        tree.new(original.workflow_id),
        retry_of=execution_id,
        snapshot=original.snapshot,
        thread_id=original.thread_id,
        **more,
    )
    await tree.store.write(lambda conn: executions.create(conn, new))
    return new.id


async def test_a_crashed_retry_takes_nothing_over_twice(tree: Tree, components: Components) -> None:
    """It is recovered from its own journal, like any run."""
    calls: list[str] = []

    async def count(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        calls.append(call.node.node_id)
        return Outcome(ports={"output": 1})

    components["a"], components["b"] = count, fail
    await tree.workflow("t > a", "a > b", "b > c")
    old = await tree.run()
    components["b"] = gate = Gate()
    new = await retry(tree, old)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run_stored, new)
        await gate.arrived.wait()
        tree.faults.crash_next(paths.execution(new), ValueError("boom"))
        gate.open.set()
        await tree.ended(new)

    assert await tree.status(new) == "completed"
    assert calls == ["a"]
    story = await tree.story(new)
    assert story[:2] == ["execution_started", "a success"]
    assert story.count("a success") == story.count("b success") == 1


async def test_a_retry_waits_for_its_server(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """Stored is enough: the next server starts it, with the journal of the old one."""
    components["b"] = fail
    async with open_tree(store_url, clock, components) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a", "a > b")
        old = await tree.run()
        new = await retry(tree, old)
    leave_behind(store_url)
    del components["b"]
    async with open_tree(store_url, clock, components, epoch=2) as tree:
        await tree.ended(new)

        assert await tree.status(new) == "completed"
        assert (await tree.logs(new, "a"))[0]["metadata"] == {"taken_over_from": old}


async def test_without_the_old_execution_everything_runs(
    tree: Tree, components: Components
) -> None:
    """It was deleted after the retry was asked for."""
    components["b"] = fail
    await tree.workflow("t > a", "a > b")
    old = await tree.run()
    new = await retry(tree, old)
    del components["b"]
    await tree.store.write(lambda conn: executions.delete_ended(conn, [old]))

    await tree.run_stored(new)

    assert await tree.status(new) == "completed"
    assert "a running" in await tree.story(new)

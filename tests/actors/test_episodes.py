"""Each execution leaves an episode. Contract: engine.md §30, memory.md."""

from typing import Any

from sqlalchemy import delete, select

from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall, NodeError
from pipelit.store import schema
from tests.kit.flows import Gate
from tests.kit.tree import Tree

Components = dict[str, Component]


async def episode(tree: Tree, execution_id: str) -> Any:
    """Return the episode of an execution, if it has one."""
    wanted = select(schema.episodes).where(schema.episodes.c.execution_id == execution_id)
    return await tree.store.read(lambda conn: conn.execute(wanted).one_or_none())


async def test_it_is_opened_with_the_start_and_closed_with_the_end(
    tree: Tree, components: Components
) -> None:
    """What was asked, what came of it, and how long it took."""
    components["r"] = gate = Gate()
    await tree.workflow("t > r")
    execution_id = await tree.start(text="x" * 300)
    await gate.arrived.wait()
    opened = await episode(tree, execution_id)
    gate.open.set()
    await tree.ended(execution_id)
    closed = await episode(tree, execution_id)

    assert (opened.agent_id, opened.trigger_type) == ("workflow:1", "chat")
    assert (opened.success, opened.ended_at, opened.summary) == (False, None, None)
    assert opened.user_id is not None
    assert (closed.success, closed.error_code) == (True, None)
    assert closed.summary.startswith("x" * 200 + " → ")
    assert closed.duration_ms >= 0
    assert [action["node_id"] for action in closed.detail["actions"]] == ["t", "r"]


async def test_a_failure_says_why(tree: Tree, components: Components) -> None:
    """Its code and the beginning of its message."""

    async def fail(call: NodeCall) -> Outcome:
        raise NodeError("no " + "x" * 400, code="ConfigError", retryable=False)

    components["a"] = fail
    await tree.workflow("t > a")

    closed = await episode(tree, await tree.run(text="hi"))

    assert (closed.success, closed.error_code) == (False, "ConfigError")
    assert closed.summary == f"hi → Node a failed: no {'x' * 400}"[: len("hi → ") + 300]


async def test_an_execution_that_never_started_has_none(tree: Tree) -> None:
    """It did nothing to remember."""
    await tree.workflow("t > a")
    execution_id = await tree.pending()

    await tree.cancel(execution_id)

    assert await episode(tree, execution_id) is None


async def test_one_that_was_deleted_meanwhile_stays_deleted(
    tree: Tree, components: Components
) -> None:
    """Nothing is recreated."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    execution_id = await tree.start()
    await gate.arrived.wait()
    await tree.store.write(lambda conn: conn.execute(delete(schema.episodes)).rowcount)

    gate.open.set()
    await tree.ended(execution_id)

    assert await tree.status(execution_id) == "completed"
    assert await episode(tree, execution_id) is None

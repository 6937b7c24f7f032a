"""An execution runs its nodes: attempts, retries, time limits, waits, slots, sizes."""

from itertools import pairwise

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.engine.limits import SizeLimits
from pipelit.engine.outcome import Outcome, Report, Usage
from pipelit.nodes.base import Component, NodeCall, NodeError, config_error
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]


def failing(times: int, error: Exception) -> Component:
    """Fail so often, then succeed."""
    left = [error] * times

    async def component(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        if left:
            raise left.pop()
        return Outcome(ports={"attempt": call.identity.attempt})

    return component


async def hang(call: NodeCall) -> Outcome:
    await trio.sleep_forever()
    raise AssertionError


def taking(seconds: float) -> Component:
    async def component(call: NodeCall) -> Outcome:
        await trio.sleep(seconds)
        return Outcome(ports={"output": call.node.node_id})

    return component


async def test_a_linear_run_is_stored_as_it_happened(tree: Tree) -> None:
    """Events gapless from 1, rows, result, and nobody owns it any more."""
    await tree.workflow("t > a", "a > b")

    execution_id = await tree.run()

    assert await tree.story(execution_id) == [
        "execution_started",
        "a pending",
        "a running",
        "a success",
        "b pending",
        "b running",
        "b success",
        "execution_completed",
    ]
    row = await tree.row(execution_id)
    assert (row.status, row.last_seq, row.owner, row.epoch) == ("completed", 8, None, None)
    assert row.final_output == {"node_outputs": {"a": {"output": "a"}, "b": {"output": "b"}}}
    assert [event.seq for event in await tree.events(execution_id)] == list(range(1, 9))
    assert [log["node_id"] for log in await tree.logs(execution_id)] == ["t", "a", "b"]


async def test_a_failure_is_retried_after_one_two_and_four_seconds(
    tree: Tree, components: Components
) -> None:
    """Each failed attempt has a row and says when it is tried again."""
    components["a"] = failing(3, NodeError("no", code="Odd"))
    await tree.workflow("t > a")

    execution_id = await tree.run()

    events = await tree.events(execution_id)
    failed = [e.data for e in events if e.data.get("status") == "failed"]
    assert [(d["attempt"], d["will_retry"], d["retry_in"]) for d in failed] == [
        (0, True, 1.0),
        (1, True, 2.0),
        (2, True, 4.0),
    ]
    running = [e.timestamp for e in events if e.data.get("status") == "running"]
    gaps = [later - earlier for earlier, later in pairwise(running)]
    assert gaps == pytest.approx([1, 2, 4])
    assert [e.data.get("attempt") for e in events if e.data.get("status") == "running"] == [
        None,
        1,
        2,
        3,
    ]
    rows = await tree.logs(execution_id, "a")
    assert [row["status"] for row in rows] == ["failed", "failed", "failed", "success"]
    assert [row["error_code"] for row in rows] == ["Odd"] * 3 + [None]
    assert rows[3]["metadata"] == {"attempt": 3}
    assert await tree.status(execution_id) == "completed"


async def test_a_fourth_failure_fails_the_execution(tree: Tree, components: Components) -> None:
    """With the node's name, its message and the code of the last attempt."""
    components["a"] = failing(4, NodeError("no", code="Odd"))
    await tree.workflow("t > a", "a > b")

    execution_id = await tree.run()

    row = await tree.row(execution_id)
    assert (row.status, row.error_message, row.error_code) == (
        "failed",
        "Node a failed: no",
        "Odd",
    )
    assert len(await tree.logs(execution_id, "a")) == 4
    assert (await tree.story(execution_id))[-3:] == ["a failed", "b skipped", "execution_failed"]
    assert (await tree.events(execution_id))[-3].data["will_retry"] is False


async def test_a_wrong_configuration_is_not_retried(tree: Tree, components: Components) -> None:
    """Trying again cannot help."""
    components["a"] = failing(1, config_error("bad"))
    await tree.workflow("t > a")

    execution_id = await tree.run()

    assert len(await tree.logs(execution_id, "a")) == 1
    assert (await tree.row(execution_id)).error_code == "ConfigError"


async def test_an_error_handler_takes_over_after_the_last_attempt(
    tree: Tree, components: Components
) -> None:
    """The execution completes; the node stays failed."""
    components["a"] = failing(9, NodeError("no", code="Odd"))
    await tree.workflow("t > a", "a > h", "a > b")

    execution_id = await tree.run()

    assert (await tree.story(execution_id))[-6:] == [
        "a failed",
        "b skipped",
        "h pending",
        "h running",
        "h success",
        "execution_completed",
    ]


async def test_a_node_that_takes_too_long_is_tried_again(
    tree: Tree, components: Components
) -> None:
    """Its own limit counts one attempt."""
    components["a"] = hang
    await tree.workflow("t > a", a={"node_timeout_seconds": 5})

    execution_id = await tree.run()

    rows = await tree.logs(execution_id, "a")
    assert [row["error"] for row in rows] == ["Node timed out after 5s"] * 4
    assert {row["error_code"] for row in rows} == {"NodeTimeoutError"}
    assert [row["duration_ms"] for row in rows] == pytest.approx([5000] * 4, abs=50)


async def test_an_execution_that_takes_too_long_fails(tree: Tree, components: Components) -> None:
    """At once, whatever runs; the message names both times."""
    components["a"] = hang
    await tree.workflow("t > a", "a > b")

    execution_id = await tree.run(limit=30)

    row = await tree.row(execution_id)
    assert row.error_message == "Execution timed out after 30s (limit: 30s)"
    assert row.error_code == "ExecutionTimeoutError"
    (cut,) = await tree.logs(execution_id, "a")
    assert (cut["error"], cut["error_code"]) == ("Execution failed", "Cancelled")
    (skipped,) = await tree.logs(execution_id, "b")
    assert skipped["metadata"] == {"skip_reason": "execution failed"}


async def test_a_timed_wait_ends_its_node_later(tree: Tree, components: Components) -> None:
    """It says until when it waits; its successors start then."""
    await tree.workflow("t > a", "a > b")
    components["a"] = waiting(60.0)

    execution_id = await tree.run()

    events = {
        (e.data.get("node_id"), e.data.get("status")): e for e in await tree.events(execution_id)
    }
    waits, ended = events["a", "waiting"], events["a", "success"]
    assert ended.timestamp - waits.timestamp == pytest.approx(60.0, abs=0.1)
    assert waits.data["resume_at"].startswith("2026-02-03T08:16:0")
    assert (await tree.logs(execution_id, "a"))[0]["output"] == {"output": "waited"}


def waiting(seconds: float) -> Component:
    async def component(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Outcome(ports={"output": "waited"}, delay_seconds=seconds)

    return component


async def test_no_more_nodes_run_than_have_slots(store_url: URL, clock: MockClock) -> None:
    """The rest starts as slots become free."""
    running, most = 0, 0

    async def count(call: NodeCall) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1.0)
        running -= 1
        return Outcome(ports={})

    parts: Components = {"merge": count}
    async with open_tree(store_url, clock, parts, max_parallel=3) as tree:
        await add_people(tree.store)
        await tree.workflow(*(f"t > n{number}" for number in range(8)))

        execution_id = await tree.run()

        assert most == 3
        assert await tree.status(execution_id) == "completed"


async def test_an_output_that_is_too_large_fails_its_node(store_url: URL, clock: MockClock) -> None:
    """Without a retry; what it used is kept."""

    async def shout(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Outcome(ports={"output": "x" * 200}, report=Report(usage=Usage(llm_calls=1)))

    limits = SizeLimits(node_output=100)
    async with open_tree(store_url, clock, {"a": shout}, size_limits=limits) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")

        execution_id = await tree.run()

        row = await tree.row(execution_id)
        assert row.error_message == "Node a failed: Node output too large (213 bytes, limit 100)"
        assert row.error_code == "OutputTooLargeError"
        assert row.llm_calls == 1


async def test_a_workflow_that_is_not_valid_fails_at_its_start(tree: Tree) -> None:
    """No node runs; the errors are the message."""
    await tree.workflow("t > ag")

    execution_id = await tree.run()

    row = await tree.row(execution_id)
    assert row.error_message == "Node 'ag' is missing required 'model' connection"
    assert row.error_code == "ValidationError"
    assert await tree.story(execution_id) == ["execution_started", "execution_failed"]


async def test_a_run_keeps_the_graph_it_began_with(tree: Tree, components: Components) -> None:
    """Changes made meanwhile are for later executions."""
    arrived, go_on = trio.Event(), trio.Event()

    async def pause(call: NodeCall) -> Outcome:
        arrived.set()
        await go_on.wait()
        return Outcome(ports={})

    components["a"] = pause
    await tree.workflow("t > a", "a > b")
    execution_id = await tree.start()
    await arrived.wait()

    await tree.forget_edges()
    go_on.set()
    await tree.gone(execution_id)

    assert "b success" in await tree.story(execution_id)
    later = await tree.run()
    assert "b success" not in await tree.story(later)


async def test_a_component_that_raises_fails_its_node_and_nothing_else(
    tree: Tree, components: Components
) -> None:
    """The code is the name of the exception's class."""
    components["a"] = failing(1, ZeroDivisionError())
    await tree.workflow("t > a")

    execution_id = await tree.run()

    first, second = await tree.logs(execution_id, "a")
    assert (first["error"], first["error_code"]) == ("ZeroDivisionError", "ZeroDivisionError")
    assert second["status"] == "success"

"""An execution ends before its time: cancelled, drained, fenced."""

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall
from tests.kit.flows import Gate, wait_for
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]


class BoomError(Exception):
    """What a test plants."""


class TestCancel:
    async def test_what_runs_is_stopped_and_what_was_to_come_is_skipped(
        self, tree: Tree, components: Components
    ) -> None:
        """At once, with a row and an event for each node."""
        components["a"] = gate = Gate()
        await tree.workflow("t > a", "a > b")
        execution_id = await tree.start()
        await gate.arrived.wait()
        began = trio.current_time()

        await tree.cancel(execution_id)

        assert trio.current_time() == pytest.approx(began, abs=0.5)
        row = await tree.row(execution_id)
        assert (row.status, row.error_message, row.owner) == ("cancelled", "", None)
        assert row.completed_at is not None
        assert (await tree.story(execution_id))[-3:] == [
            "a failed",
            "b skipped",
            "execution_cancelled",
        ]
        (cut,) = await tree.logs(execution_id, "a")
        assert (cut["error"], cut["error_code"]) == ("Execution cancelled", "Cancelled")

    async def test_a_timed_wait_ends(self, tree: Tree, components: Components) -> None:
        """It is stopped like a running node."""
        components["a"] = wait_for(600.0)
        await tree.workflow("t > a")
        execution_id = await tree.start()
        await trio.sleep(1.0)

        await tree.cancel(execution_id)

        assert (await tree.story(execution_id))[-3:] == [
            "a waiting",
            "a failed",
            "execution_cancelled",
        ]

    async def test_a_retry_that_was_to_come_does_not(
        self, tree: Tree, components: Components
    ) -> None:
        """Its node is passed by."""

        async def fail(call: NodeCall) -> Outcome:
            await trio.lowlevel.checkpoint()
            raise BoomError

        components["a"] = fail
        await tree.workflow("t > a")
        execution_id = await tree.start()
        await trio.sleep(0.5)

        await tree.cancel(execution_id)
        await trio.sleep(5.0)

        assert (await tree.story(execution_id))[-3:] == [
            "a failed",
            "a skipped",
            "execution_cancelled",
        ]

    async def test_an_execution_that_never_ran_has_one_event(self, tree: Tree) -> None:
        """And no node of it has any."""
        await tree.workflow("t > a")
        execution_id = await tree.pending()

        await tree.cancel(execution_id)

        assert await tree.status(execution_id) == "cancelled"
        assert await tree.story(execution_id) == ["execution_cancelled"]

    async def test_an_execution_that_has_ended_is_left_alone(self, tree: Tree) -> None:
        """It is not even touched."""
        await tree.workflow("t > a")
        execution_id = await tree.run()
        before = await tree.row(execution_id)

        await tree.cancel(execution_id)

        assert await tree.row(execution_id) == before

    async def test_two_at_once_both_return_and_one_is_told(
        self, tree: Tree, components: Components
    ) -> None:
        """There is one terminal event."""
        components["a"] = gate = Gate()
        await tree.workflow("t > a")
        execution_id = await tree.start()
        await gate.arrived.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.cancel, execution_id)
            nursery.start_soon(tree.cancel, execution_id)

        assert (await tree.story(execution_id)).count("execution_cancelled") == 1

    async def test_a_node_that_does_not_stop_is_written_off(
        self, tree: Tree, components: Components
    ) -> None:
        """After two seconds nobody waits for it any more, and what it gives is not used."""

        async def deaf(call: NodeCall) -> Outcome:
            with trio.CancelScope(shield=True):
                await trio.sleep(60.0)
            return Outcome(ports={})

        components["a"] = deaf
        await tree.workflow("t > a")
        execution_id = await tree.start()
        await trio.sleep(1.0)
        began = trio.current_time()

        await tree.cancel(execution_id)
        took = trio.current_time() - began
        await trio.sleep(100.0)

        assert took == pytest.approx(2.0, abs=0.5)
        assert (await tree.story(execution_id))[-2:] == ["a failed", "execution_cancelled"]

    async def test_a_crash_in_the_middle_does_not_lose_it(
        self, tree: Tree, components: Components
    ) -> None:
        """The execution is taken up again, and cancelled all the same."""
        components["a"] = gate = Gate()
        await tree.workflow("t > a")
        execution_id = await tree.start()
        await gate.arrived.wait()
        tree.faults.crash_next(paths.execution(execution_id), BoomError())

        await tree.cancel(execution_id)

        assert await tree.status(execution_id) == "cancelled"
        story = await tree.story(execution_id)
        assert story.count("execution_cancelled") == 1
        assert story.count("a failed") == 1

    async def test_one_that_waits_for_a_slot_never_runs(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """Its place in the queue is gone."""
        gate = Gate()
        async with open_tree(store_url, clock, {"a": gate}, max_running=1) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a")
            first = await tree.start()
            await gate.arrived.wait()
            second = await tree.start()

            await tree.cancel(second)
            gate.open.set()
            await tree.gone(first)
            await tree.settle()

            assert len(gate.calls) == 1
            assert await tree.story(second) == ["execution_cancelled"]


class TestDrain:
    async def test_what_runs_may_end_and_nothing_new_begins(
        self, tree: Tree, components: Components
    ) -> None:
        """The row keeps its status and has no owner."""
        components["a"] = gate = Gate()
        await tree.workflow("t > a", "a > b")
        execution_id = await tree.start()
        await gate.arrived.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.system.stop)
            await tree.settle()
            gate.open.set()

        row = await tree.row(execution_id)
        assert (row.status, row.owner, row.epoch) == ("running", None, None)
        assert (await tree.story(execution_id))[-2:] == ["a success", "b pending"]

    async def test_a_run_whose_last_node_ends_in_time_completes(
        self, tree: Tree, components: Components
    ) -> None:
        """There is nothing left to take up."""
        components["a"] = gate = Gate()
        await tree.workflow("t > a")
        execution_id = await tree.start()
        await gate.arrived.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.system.stop)
            await tree.settle()
            gate.open.set()

        assert await tree.status(execution_id) == "completed"

    async def test_a_node_that_takes_longer_than_the_grace_is_cut_off(
        self, tree: Tree, components: Components
    ) -> None:
        """Nothing is written about it: it will start again."""
        components["a"] = gate = Gate()
        await tree.workflow("t > a")
        execution_id = await tree.start()
        await gate.arrived.wait()
        began = trio.current_time()

        await tree.system.stop()

        assert trio.current_time() - began == pytest.approx(5.0, abs=0.5)
        assert (await tree.row(execution_id)).status == "running"
        assert (await tree.story(execution_id))[-1] == "a running"


async def test_a_fenced_execution_stops_without_another_word(
    tree: Tree, components: Components
) -> None:
    """Somebody else owns it: nothing is written or told, and it is no crash."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    execution_id = await tree.start()
    await gate.arrived.wait()
    heard = tree.listen(f"execution:{execution_id}")
    await tree.change(execution_id, owner="other", epoch=9)

    gate.open.set()
    await tree.gone(execution_id)

    assert heard == []
    row = await tree.row(execution_id)
    assert (row.status, row.owner, row.epoch) == ("running", "other", 9)
    assert (await tree.story(execution_id))[-1] == "a running"
    (fenced,) = tree.system.records(event="fenced")
    assert (fenced.detail["owner"], fenced.detail["epoch"]) == ("other", 9)
    assert tree.system.records(event="actor_crashed") == ()

"""Nothing is stuck: what has no live owner is taken up, at start and every half minute."""

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.nodes.base import Component
from pipelit.store.errors import StorageUnavailable
from tests.kit.flows import Gate, leave_behind
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]
ROUND = 30.5


async def test_a_pending_execution_nobody_was_told_about_is_started(tree: Tree) -> None:
    """In the next round."""
    await tree.workflow("t > a")
    execution_id = await tree.pending()

    await trio.sleep(ROUND)
    await tree.settle()

    assert await tree.status(execution_id) == "completed"


async def test_pending_messages_of_a_session_keep_their_order(
    tree: Tree, components: Components
) -> None:
    """They go through the session, not past it."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    first = await tree.pending(chat=True)
    second = await tree.pending(chat=True)

    await trio.sleep(ROUND)
    await gate.arrived.wait()

    assert await tree.status(first) == "running"
    assert await tree.status(second) == "pending"
    gate.open.set()
    await tree.ended(second)
    assert await tree.status(second) == "completed"


async def test_an_execution_of_a_dead_server_is_taken_up(
    tree: Tree, components: Components
) -> None:
    """Whenever it is found."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    execution_id = await tree.start()
    await gate.arrived.wait()
    await tree.change(execution_id, owner="other", epoch=99)
    gate.open.set()
    await tree.gone(execution_id)

    await trio.sleep(ROUND)
    await tree.settle()

    assert await tree.status(execution_id) == "completed"
    assert len(gate.calls) == 2


async def test_one_that_was_lost_between_two_steps_is_found(tree: Tree) -> None:
    """It is ours by its row, and no actor runs it in two rounds."""
    await tree.workflow("t > a")
    execution_id = await tree.pending()
    await tree.change(execution_id, owner="server", epoch=1)

    await trio.sleep(ROUND)
    await tree.settle()
    assert await tree.status(execution_id) == "pending"
    await trio.sleep(ROUND)
    await tree.settle()

    assert await tree.status(execution_id) == "completed"


async def test_one_that_cannot_be_taken_up_disturbs_no_other(
    store_url: URL, clock: MockClock
) -> None:
    """It is given up after its recoveries; the others go on."""
    gate = Gate()
    async with open_tree(store_url, clock, {"a": gate}, grace=0.1) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")
        broken, sound = await tree.start(), await tree.start()
        await trio.sleep(1.0)
        await tree.change(broken, snapshot={})
    leave_behind(store_url)
    gate.open.set()

    async with open_tree(store_url, clock, {"a": gate}, epoch=2) as tree:
        await tree.ended(broken)
        await tree.ended(sound)

        row = await tree.row(broken)
        assert (row.status, row.error_code) == ("failed", "PoisonExecution")
        assert await tree.status(sound) == "completed"


class TestZombies:
    async def test_what_was_silent_for_too_long_is_given_up(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """With a result for each node."""
        async with open_tree(store_url, clock, {"a": Gate()}, grace=0.1) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a", "a > b")
            execution_id = await tree.start()
            await trio.sleep(1.0)
        await trio.sleep(200.0)

        async with open_tree(store_url, clock, {}, epoch=2, zombie_threshold=100) as tree:
            await tree.ended(execution_id)

            row = await tree.row(execution_id)
            assert (row.status, row.error_code) == ("failed", "ZombieExecution")
            assert row.error_message == (
                "Execution recovered as failed: worker presumed crashed (exceeded zombie threshold)"
            )
            assert (await tree.story(execution_id))[-3:] == [
                "a failed",
                "b skipped",
                "execution_failed",
            ]

    async def test_what_never_ran_is_no_zombie(self, store_url: URL, clock: MockClock) -> None:
        """A pending execution is started, however old it is."""
        async with open_tree(store_url, clock, {}) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a")
            execution_id = await tree.pending()
        await trio.sleep(200.0)

        async with open_tree(store_url, clock, {}, epoch=2, zombie_threshold=100) as tree:
            await tree.ended(execution_id)

            assert await tree.status(execution_id) == "completed"

    async def test_what_is_alive_is_never_touched(self, store_url: URL, clock: MockClock) -> None:
        """Whatever its age."""
        gate = Gate()
        async with open_tree(store_url, clock, {"a": gate}, zombie_threshold=10) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a")
            execution_id = await tree.start()
            await trio.sleep(200.0)

            gate.open.set()
            await tree.ended(execution_id)

            assert await tree.status(execution_id) == "completed"


async def test_a_database_that_does_not_answer_only_postpones_a_round(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server lives on, and the next round finds everything."""
    await tree.workflow("t > a")
    execution_id = await tree.pending()
    read = tree.store.read

    async def refuse(query, *, timeout=None):
        raise StorageUnavailable

    monkeypatch.setattr(tree.store, "read", refuse)
    await trio.sleep(5 * ROUND)
    monkeypatch.setattr(tree.store, "read", read)

    await trio.sleep(ROUND)
    await tree.settle()

    assert await tree.status(execution_id) == "completed"
    assert tree.system.records(event="actor_crashed") == ()

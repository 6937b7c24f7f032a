"""Who runs: slots, order, and a manager that may crash itself."""

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.actors.manager_messages import Start
from pipelit.engine.outcome import Outcome
from pipelit.errors import Unavailable
from pipelit.nodes.base import Component, NodeCall
from tests.kit.flows import Gate
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]


class BoomError(Exception):
    """What a test plants."""


async def test_executions_start_in_order_of_creation_as_slots_become_free(
    store_url: URL, clock: MockClock
) -> None:
    """The others stay pending."""
    begun: list[str] = []

    async def work(call: NodeCall) -> Outcome:
        begun.append(call.identity.execution_id)
        await trio.sleep(1.0 + len(begun) / 10)
        return Outcome(ports={})

    async with open_tree(store_url, clock, {"a": work}, max_running=2) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")
        ids = [await tree.pending() for _ in range(5)]
        tree.manager.tell(Start(tuple(ids)))

        await trio.sleep(0.5)
        assert [await tree.status(e) for e in ids] == ["running"] * 2 + ["pending"] * 3
        await tree.ended(ids[-1])

        assert set(begun[:2]) == set(ids[:2])
        assert begun[2:] == ids[2:]


async def test_one_that_waits_for_its_session_holds_back_no_other(
    store_url: URL, clock: MockClock
) -> None:
    """It takes a slot only when its turn has come."""
    gate = Gate()
    async with open_tree(store_url, clock, {"a": gate}, max_running=2) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")
        await tree.workflow("t > b", slug="other")
        await tree.post("first")
        await gate.arrived.wait()
        second, _ = await tree.post("second")

        other = await tree.run(2)

        assert await tree.status(other) == "completed"
        assert await tree.status(second) == "pending"


async def test_an_execution_that_is_named_twice_runs_once(
    tree: Tree, components: Components
) -> None:
    """Waiting, running, or over already."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    execution_id = await tree.pending()

    tree.manager.tell(Start((execution_id, execution_id)))
    await gate.arrived.wait()
    tree.manager.tell(Start((execution_id,)))
    gate.open.set()
    await tree.ended(execution_id)
    tree.manager.tell(Start((execution_id,)))
    await tree.settle()

    assert len(gate.calls) == 1


async def test_a_crash_of_the_manager_does_not_touch_what_runs(
    tree: Tree, components: Components
) -> None:
    """It finds its executions again, and whoever waits for them is told in the end."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    first, _ = await tree.post("first")
    second, _ = await tree.post("second")
    await gate.arrived.wait()

    tree.faults.crash_next(paths.MANAGER, BoomError())
    tree.manager.tell(Start(()))
    await trio.sleep(1.0)
    gate.open.set()
    await tree.ended(second)

    assert [r.event for r in tree.system.records(event="actor_restarted")] == ["actor_restarted"]
    assert len(gate.calls) == 2
    assert await tree.status(first) == "completed"
    assert tree.system.records(event="recovered") == ()


async def test_what_waited_for_a_slot_when_the_manager_crashed_still_runs(
    store_url: URL, clock: MockClock
) -> None:
    """The reconciler finds it, and slots are counted as before."""
    gate = Gate()
    async with open_tree(store_url, clock, {"a": gate}, max_running=1) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")
        await tree.start()
        await gate.arrived.wait()
        waiting = await tree.start()
        await tree.settle()

        tree.faults.crash_next(paths.MANAGER, BoomError())
        tree.manager.tell(Start(()))
        await trio.sleep(31.0)
        assert await tree.status(waiting) == "pending"
        gate.open.set()
        await tree.ended(waiting)

        assert await tree.status(waiting) == "completed"


async def test_a_cancel_that_cannot_be_stored_is_refused_in_time(
    tree: Tree, components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager does not crash over it, and the next one may succeed."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    execution_id = await tree.start()
    await gate.arrived.wait()
    full = trio.Event()
    write = tree.store.write

    async def wait_for_space(unit, key=None, *, patient=False):
        await full.wait()
        return await write(unit, key, patient=patient)

    monkeypatch.setattr(tree.store, "write", wait_for_space)

    with pytest.raises(Unavailable):
        await tree.cancel(execution_id)
    full.set()
    await tree.cancel(execution_id)

    assert await tree.status(execution_id) == "cancelled"
    assert tree.system.records(event="actor_crashed") == ()

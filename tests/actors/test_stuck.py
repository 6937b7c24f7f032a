"""An execution that waits for nothing and does not run is seen. Contract: operations.md §2."""

from typing import Any

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors.stuck import StuckFinder
from pipelit.nodes.base import Component
from pipelit.nodes.subworkflow import subworkflow
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.stuck import find_idle
from tests.kit.flows import Gate
from tests.kit.tree import Tree, add_people, open_tree

US = Owner("server", 1)


def finder(tree: Tree, max_running: int = 100) -> StuckFinder:
    return StuckFinder(tree.store, US, max_running=max_running)


async def orphaned_question(tree: Tree) -> str:
    """Leave an execution that waits for an answer to no question: nobody takes that up."""
    await tree.workflow("t > a")
    execution_id = await tree.run()
    await tree.change(execution_id, status="interrupted", owner=None, epoch=None)
    return execution_id


async def test_it_counts_after_a_minute(tree: Tree) -> None:
    """At the first look nobody knows how long it has been so."""
    await orphaned_question(tree)
    finds = finder(tree)

    assert await finds.look(tree.system) == 0
    await trio.sleep(59)
    assert await finds.look(tree.system) == 0
    await trio.sleep(2)
    assert await finds.look(tree.system) == 1
    assert finds.count == 1


async def test_one_that_moved_between_two_looks_starts_anew(tree: Tree) -> None:
    """Its minute begins when it is seen again."""
    execution_id = await orphaned_question(tree)
    finds = finder(tree)
    await finds.look(tree.system)
    await tree.change(execution_id, status="completed")
    await trio.sleep(30)
    await finds.look(tree.system)
    await tree.change(execution_id, status="interrupted")
    await trio.sleep(40)

    assert await finds.look(tree.system) == 0
    await trio.sleep(61)
    assert await finds.look(tree.system) == 1


async def test_what_runs_or_waits_for_a_person_is_not_stuck(
    tree: Tree, components: dict[str, Component]
) -> None:
    """However long."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    running = await tree.start()
    await gate.arrived.wait()
    finds = finder(tree)
    await finds.look(tree.system)
    await trio.sleep(100)

    assert await tree.status(running) == "running"
    assert await finds.look(tree.system) == 0


async def test_a_child_takes_no_slot_that_one_could_wait_for(
    store_url: URL, clock: MockClock, components: dict[str, Component]
) -> None:
    """One that is pending beside a parent and its child is stuck if two may run."""
    components |= {"w": subworkflow, "c": (gate := Gate())}
    async with open_tree(store_url, clock, components, max_running=1) as tree:
        await add_people(tree.store)
        await tree.workflow("t > c", slug="child")
        parent = await tree.workflow("t > w", slug="parent", w={"target_workflow": "child"})
        await tree.start(parent)
        await gate.arrived.wait()
        await tree.pending(parent)  # nobody starts it: the manager has one slot
        finds = finder(tree, max_running=2)
        await finds.look(tree.system)
        await trio.sleep(61)

        assert await finds.look(tree.system) == 1


@pytest.mark.parametrize(
    ("row", "has_slot", "why"),
    [
        ({"status": "running", "owner": None, "epoch": None}, True, "no_owner"),
        ({"status": "running", "owner": "server", "epoch": 0}, True, "no_owner"),
        ({"status": "running", "owner": "other", "epoch": 1}, True, "no_owner"),
        ({"status": "running", "owner": "server", "epoch": 1}, True, None),
        ({"status": "pending"}, True, "could_start"),
        ({"status": "pending"}, False, None),
        ({"status": "interrupted"}, True, "no_question"),
        ({"status": "completed"}, True, None),
    ],
)
async def test_what_nothing_moves_is_found(
    tree: Tree, row: dict[str, Any], has_slot: bool, why: str | None
) -> None:
    """By status, owner, and whether there is a slot."""
    await tree.workflow("t > a")
    execution_id = await tree.pending()
    await tree.change(execution_id, **row)
    idle = await tree.store.read(lambda conn: find_idle(conn, US, has_slot=has_slot))

    assert [one.why for one in idle] == ([] if why is None else [why])


async def test_a_message_waits_for_the_one_before_it(tree: Tree) -> None:
    """The second of a session could not start: only the first is idle."""
    await tree.workflow("t > a")
    first = await tree.pending(chat=True)
    await tree.pending(chat=True)
    idle = await tree.store.read(lambda conn: find_idle(conn, US, has_slot=True))

    assert [one.execution_id for one in idle] == [first]

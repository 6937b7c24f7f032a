"""Loops in a running server: stored per iteration, and taken up in the middle. engine.md §13."""

from functools import partial

import trio
from sqlalchemy import URL, select
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.engine.limits import SizeLimits
from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall, NodeError
from pipelit.nodes.confirmation import human_confirmation
from pipelit.nodes.loop import loop
from pipelit.store import schema
from tests.actors.test_retries import retry
from tests.kit.flows import leave_behind, wait_for
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]

SIMPLE = ("t > a", "a > l", "l loop_body> b", "b loop_return> l", "l > z")


async def three(call: NodeCall) -> Outcome:
    """Give three items."""
    await trio.lowlevel.checkpoint()
    return Outcome(ports={"output": ["x", "y", "z"]})


class Bodies:
    """Runs the body, and remembers in which iteration with which item."""

    def __init__(self, *, fail: str = "", crash: str = "") -> None:
        self.fail, self.crash = fail, crash
        self.calls: list[NodeCall] = []
        self.tree: Tree | None = None
        self.execution_id = ""

    @property
    def items(self) -> list[str]:
        return [call.state["loop"]["item"] for call in self.calls]

    async def __call__(self, call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        self.calls.append(call)
        item = call.state["loop"]["item"]
        if item == self.fail:
            raise NodeError(f"no {item}", code="Odd", retryable=False)
        if item == self.crash and self.tree is not None:
            self.crash = ""
            self.tree.faults.crash_next(paths.execution(self.execution_id), ValueError("boom"))
        return Outcome(ports={"output": item.upper()})


def parts(components: Components, **more: Component) -> Components:
    components.update({"loop": partial(loop, max_iterations=1000), "a": three, **more})
    return components


async def test_each_iteration_is_stored_under_its_key(tree: Tree, components: Components) -> None:
    """Journal, events and rows; each run of the body has its own idempotency key."""
    parts(components, b=(bodies := Bodies()))
    await tree.workflow(*SIMPLE, l={"source_node": "a", "field": "output"})

    execution_id = await tree.run()

    assert bodies.items == ["x", "y", "z"]
    keys = [call.identity.idempotency_key for call in bodies.calls]
    assert keys == [f"{execution_id}:b:{index}" for index in range(3)]
    journal = schema.journal
    results = select(journal.c.node_id, journal.c.iteration).where(journal.c.kind == "result")
    stored = await tree.store.read(
        lambda conn: conn.execute(results.order_by(journal.c.position)).all()
    )
    assert stored == [("a", "0"), ("b", "0"), ("b", "1"), ("b", "2"), ("l", "0"), ("z", "0")]
    (row,) = await tree.logs(execution_id, "l")
    assert row["output"]["results"] == [{"b": {"output": letter}} for letter in "XYZ"]
    rows = await tree.logs(execution_id, "b")
    assert [row["metadata"] for row in rows] == [{"iteration": str(index)} for index in range(3)]


async def test_a_crash_in_the_middle_repeats_only_what_ran(
    tree: Tree, components: Components
) -> None:
    """Finished iterations stay; the broken one starts again with the same key."""
    parts(components, b=(bodies := Bodies(crash="y")))
    bodies.tree = tree
    await tree.workflow(*SIMPLE, l={"source_node": "a", "field": "output"})
    bodies.execution_id = execution_id = await tree.pending()

    await tree.run_stored(execution_id)

    assert await tree.status(execution_id) == "completed"
    assert bodies.items == ["x", "y", "y", "z"]
    rows = await tree.logs(execution_id, "b")
    assert [row["metadata"] for row in rows] == [
        {"iteration": "0"},
        {"iteration": "1", "recovered": True},
        {"iteration": "2"},
    ]
    assert (await tree.story(execution_id)).count("l success") == 1


async def test_each_iteration_waits_its_own_time(store_url: URL, clock: MockClock) -> None:
    """And only the rest of it after the server has died."""
    components = parts({}, b=wait_for(60.0))
    async with open_tree(store_url, clock, components) as tree:
        await add_people(tree.store)
        await tree.workflow(*SIMPLE, l={"source_node": "a", "field": "output"})
        execution_id = await tree.start()
        began = trio.current_time()
        await trio.sleep(80.0)
    leave_behind(store_url)

    async with open_tree(store_url, clock, components, epoch=2) as tree:
        await tree.ended(execution_id)

        assert round(trio.current_time() - began) == 180
        (record,) = tree.system.records(event="recovered")
        assert record.detail["recovery_count"] == 0
        assert (await tree.story(execution_id)).count("b success") == 3


async def test_a_person_is_asked_in_each_iteration(store_url: URL, clock: MockClock) -> None:
    """The execution is interrupted in between, also over a restart of the server."""
    components = parts({}, q=human_confirmation)
    edges = ("t > a", "a > l", "l loop_body> q", "q loop_return> l")
    configs = {"l": {"source_node": "a", "field": "output"}, "q": {"on_reject": "continue"}}
    async with open_tree(store_url, clock, components) as tree:
        await add_people(tree.store)
        await tree.workflow(*edges, **configs)
        execution_id = await tree.start()
        first = await tree.interrupted(execution_id)
        await tree.answer(execution_id, "yes", first.task_id)
        second = await tree.interrupted(execution_id)
        assert second.task_id != first.task_id

    async with open_tree(store_url, clock, components, epoch=2) as tree:
        await tree.answer(execution_id, "no", second.task_id)
        third = await tree.interrupted(execution_id)
        await tree.answer(execution_id, "yes", third.task_id)
        await tree.ended(execution_id)

        (row,) = await tree.logs(execution_id, "l")
        given = [result["q"]["confirmed"] for result in row["output"]["results"]]
        assert given == [True, False, True]


async def test_an_item_that_fails_for_good_is_a_result(tree: Tree, components: Components) -> None:
    """If the loop goes on; else the execution fails with the words of the node."""
    parts(components, b=Bodies(fail="y"))
    goes_on = {"source_node": "a", "field": "output", "on_error": "continue"}
    going_on = await tree.workflow(*SIMPLE, slug="on", l=goes_on)
    stopping = await tree.workflow(*SIMPLE, slug="off", l={"source_node": "a", "field": "output"})

    execution_id = await tree.run(going_on)
    assert await tree.status(execution_id) == "completed"
    (row,) = await tree.logs(execution_id, "l")
    assert row["output"]["results"][1] == {
        "b": {"error": "no y", "error_code": "Odd", "failed_node": "b"}
    }

    execution_id = await tree.run(stopping)
    failed = await tree.row(execution_id)
    assert (failed.status, failed.error_message) == ("failed", "Node b failed: no y")
    assert (await tree.story(execution_id))[-4:] == [
        *("b failed", "l failed", "z skipped"),
        "execution_failed",
    ]


async def test_the_progress_of_a_run_belongs_to_its_iteration(
    tree: Tree, components: Components
) -> None:
    """The next iteration begins without it, a retry in the same one with it; few are kept."""
    found: list[object] = []
    stored: list[list[str]] = []
    saved = select(schema.run_checkpoints.c.iteration)

    async def save(call: NodeCall) -> Outcome:
        assert call.run is not None
        found.append(call.run.progress)
        stored.append(list(await tree.store.read(lambda conn: conn.scalars(saved).all())))
        await call.run.save(call.state["loop"]["item"])
        if call.identity.attempt == 0 and call.state["loop"]["index"] == 1:
            raise NodeError("no", code="Odd")
        return Outcome(ports={"output": 1})

    parts(components, b=save)
    await tree.workflow(*SIMPLE, l={"source_node": "a", "field": "output"})

    await tree.run()

    assert found == [None, None, "y", None]
    assert stored == [[], ["0"], ["0", "1"], ["0"]]


async def test_too_many_items_fail_the_loop(tree: Tree, components: Components) -> None:
    """Before the first iteration."""
    parts(components)
    config = {"source_node": "a", "field": "output", "max_iterations": 2}
    await tree.workflow(*SIMPLE, l=config)

    row = await tree.row(await tree.run())

    assert row.error_code == "LoopLimitError"
    assert row.error_message == (
        "Node l failed: Loop 'l' has 3 items, more than max_iterations (2)"
    )


async def test_results_that_are_too_large_end_the_run(store_url: URL, clock: MockClock) -> None:
    """Although each of them was small enough; what runs beside is stopped."""
    components = parts({}, b=Bodies())
    limits = SizeLimits(node_output=80)
    async with open_tree(store_url, clock, components, size_limits=limits) as tree:
        await add_people(tree.store)
        await tree.workflow(*SIMPLE, "a > w", l={"source_node": "a", "field": "output"})
        components["w"] = wait_for(100.0)
        execution_id = await tree.run()

        row = await tree.row(execution_id)
        assert row.error_code == "OutputTooLargeError"
        assert row.error_message.startswith("Node l failed: Node output too large (")
        ended = {"b success", "l failed", "w failed", "z skipped"}
        assert ended <= set(await tree.story(execution_id))


async def test_a_retry_goes_on_in_the_middle_of_a_loop(tree: Tree, components: Components) -> None:
    """Items and finished iterations are taken over and told; the rest runs."""
    parts(components, b=Bodies(fail="y"))
    await tree.workflow(*SIMPLE, l={"source_node": "a", "field": "output"})
    old = await tree.run()
    components["b"] = bodies = Bodies()

    new = await retry(tree, old)
    await tree.run_stored(new)

    assert await tree.status(new) == "completed"
    assert bodies.items == ["y", "z"]
    rows = await tree.logs(new, "b")
    assert rows[0]["metadata"] == {"taken_over_from": old, "iteration": "0"}
    (row,) = await tree.logs(new, "l")
    assert row["output"]["values"] == [None, None, None]
    assert row["output"]["results"] == [{"b": {"output": letter}} for letter in "XYZ"]

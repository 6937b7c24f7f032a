"""Each failure is handled once, whatever dies meanwhile. Contract: engine.md §17."""

from sqlalchemy import URL, select, update
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.nodes.base import Component
from pipelit.store import schema
from tests.actors.test_retries import fail
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]


async def handled(tree: Tree, slug: str = "flow") -> int:
    """Store a workflow whose failures its own error trigger handles."""
    workflow_id = await tree.workflow("t > a", "t2 > b", slug=slug)
    nodes = schema.nodes
    oops = update(nodes).where(nodes.c.node_id == "t2").values(component_type="trigger_error")
    await tree.store.write(lambda conn: conn.execute(oops).rowcount)
    return workflow_id


async def handlers(tree: Tree) -> list[str]:
    """Return the executions that were started to handle others."""
    table = schema.executions
    wanted = select(table.c.id).where(table.c.source == "error").order_by(table.c.created_seq)
    return await tree.store.read(lambda conn: list(conn.scalars(wanted)))


async def test_a_failure_is_handled_at_once(tree: Tree, components: Components) -> None:
    """No time passes between the failure and its handler."""
    components["a"] = fail
    await handled(tree)
    failed = await tree.run()
    await tree.settle()

    (handler,) = await handlers(tree)
    await tree.ended(handler)

    row, new = await tree.row(failed), await tree.row(handler)
    assert (new.status, new.user_id, new.trigger_node_id) == ("completed", row.user_id, "t2")
    assert (new.created_at - row.completed_at).total_seconds() < 1
    assert new.trigger["error"]["source_node_id"] == "a"


async def test_a_failure_without_handler_leaves_nothing_to_do(
    tree: Tree, components: Components
) -> None:
    """Not even a row."""
    components["a"] = fail
    await tree.workflow("t > a")

    await tree.run()

    found = select(schema.dispatches.c.kind)
    assert await tree.store.read(lambda conn: list(conn.scalars(found))) == []


async def test_a_crash_only_delays_the_handling(tree: Tree, components: Components) -> None:
    """The actor comes back and finds the row; nothing is handled twice."""
    components["a"] = fail
    await handled(tree)
    tree.faults.crash_next(paths.ERRORS, ValueError("boom"))

    await tree.run()
    while not (found := await handlers(tree)):
        await tree.settle()
    await tree.ended(found[0])
    await tree.run()
    await tree.settle()

    assert len(await handlers(tree)) == 2


async def test_the_next_server_handles_what_the_last_one_left(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """A given-up execution counts too."""
    async with open_tree(store_url, clock, components) as tree:
        await add_people(tree.store)
        await handled(tree)
        execution_id = await tree.pending()
        for _ in range(4):
            tree.faults.crash_next(paths.execution(execution_id), ValueError("boom"))
        for _ in range(20):
            tree.faults.crash_next(paths.ERRORS, ValueError("boom"))
        await tree.run_stored(execution_id)
        assert await handlers(tree) == []
    async with open_tree(store_url, clock, components, epoch=2) as tree:
        await tree.settle()
        (handler,) = await handlers(tree)
        await tree.ended(handler)

        new = await tree.row(handler)
        assert new.trigger["error"]["error_code"] == "PoisonExecution"
        assert new.trigger["text"].startswith("Error: Execution recovered as failed")

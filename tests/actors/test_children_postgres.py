"""Child executions, their tasks and episodes on PostgreSQL."""

import pytest
from sqlalchemy import URL, select
from trio.testing import MockClock

from pipelit.nodes.base import Component
from pipelit.store import schema
from pipelit.store.database import Purpose, open_engine
from pipelit.store.migrate import Migrations
from tests.actors.test_children import add_task, family, only_child, spend, work_on_task
from tests.kit.flows import ADA
from tests.kit.postgres import postgres_database, postgres_url
from tests.kit.tree import add_people, open_tree

__all__ = ["postgres_database", "postgres_url"]

pytestmark = pytest.mark.slow


async def test_a_child_gives_its_task_the_outcome(
    postgres_url: URL, clock: MockClock, components: dict[str, Component]
) -> None:
    """Its end, its costs and the sums of the epic are one transaction; both have an episode."""
    engine = open_engine(postgres_url, Purpose.MIGRATE)
    Migrations().upgrade(engine)
    engine.dispose()
    components["w"], components["c"] = work_on_task, spend
    async with open_tree(postgres_url, clock, components) as tree:
        await add_people(tree.store)
        await add_task(tree, ADA)

        parent_id = await tree.run(await family(tree))

        child = await only_child(tree, parent_id)
        task = await tree.store.read(lambda conn: conn.execute(select(schema.tasks)).one())
        epic = await tree.store.read(lambda conn: conn.execute(select(schema.epics)).one())
        episodes = await tree.store.read(
            lambda conn: conn.execute(select(schema.episodes.c.execution_id)).scalars().all()
        )
        forwarded = {event.type for event in await tree.events(parent_id)}

    assert (child.status, task.status, task.execution_id) == ("completed", "completed", child.id)
    assert (task.actual_tokens, epic.spent_tokens, epic.completed_tasks) == (10, 10, 1)
    assert set(episodes) == {parent_id, child.id}
    assert "child_node_status" in forwarded

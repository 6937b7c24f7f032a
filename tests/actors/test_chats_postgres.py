"""Chat sessions on a database that several servers share: any of them takes any message."""

from collections.abc import AsyncIterator

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors.chats import Wake
from pipelit.actors.manager_messages import Join, Run
from pipelit.clock import Ids
from pipelit.nodes.base import Component
from pipelit.store.database import Purpose, open_engine
from pipelit.store.migrate import Migrations
from pipelit.store.queries.servers import register_server
from tests.actors.test_chats import Turns
from tests.kit.flows import Gate
from tests.kit.postgres import postgres_database, postgres_url
from tests.kit.store import hold_of, running_store
from tests.kit.tree import Tree, add_people, open_tree

__all__ = ["postgres_database", "postgres_url"]

pytestmark = pytest.mark.slow

Components = dict[str, Component]
Two = tuple[Tree, Tree]


@pytest.fixture
async def servers(
    postgres_url: URL, clock: MockClock, components: Components
) -> AsyncIterator[Two]:
    """Two servers of one database, in which Ada and Bob exist and have a workflow."""
    engine = open_engine(postgres_url, Purpose.MIGRATE)
    Migrations().upgrade(engine)
    engine.dispose()
    names, hold = ("one", "two"), hold_of(clock)
    async with running_store(postgres_url, hold=hold) as store:
        first, second = [
            await store.write(lambda conn, name=name: register_server(conn, name)) for name in names
        ]
    async with (
        open_tree(postgres_url, clock, components, node_id="one", epoch=first, hold=hold) as one,
        open_tree(postgres_url, clock, components, node_id="two", epoch=second, hold=hold) as two,
    ):
        two.ids = Ids.seeded(8)
        await add_people(one.store)
        await one.workflow("t > a")
        yield one, two


async def test_a_message_waits_for_one_that_another_server_runs(
    servers: Two, components: Components
) -> None:
    """And runs when that has ended, though nobody tells."""
    one, two = servers
    components["a"] = gate = Gate()
    first, _ = await one.post("first")
    await gate.arrived.wait()

    second, _ = await two.post("second")
    await trio.sleep(5)
    before = await two.status(second)
    gate.open.set()
    await trio.sleep(5)

    assert before == "pending"
    assert [await two.status(which) for which in (first, second)] == ["completed", "completed"]


async def test_messages_of_several_servers_run_one_at_a_time_in_order(
    servers: Two, components: Components
) -> None:
    """Both sessions live, and neither is told what the other has accepted."""
    components["a"] = turns = Turns()
    ids = [(await servers[number % 2].post(f"{number}"))[0] for number in range(6)]

    await trio.sleep(60)

    assert turns.order == ids
    assert turns.most == 1


async def test_a_message_never_overtakes_one_that_a_living_session_does_not_know(
    servers: Two, components: Components
) -> None:
    """It was idle, so it would run its own at once; but the turn is asked for in the store."""
    one, two = servers
    components["a"] = turns = Turns()
    ids = [(await two.post("wakes the session"))[0]]
    await two.ended(ids[0])

    ids += [(await server.post("x"))[0] for server in (one, two, one, two)]
    await trio.sleep(30)

    assert turns.order == ids
    assert turns.most == 1


async def test_a_session_finds_what_another_server_has_left(
    servers: Two, components: Components
) -> None:
    """A pending message that only the store knows, told of to a session that has nothing to do."""
    one, _ = servers
    first, _ = await one.post("first")
    await one.ended(first)
    left = await one.pending(chat=True)

    one.session("2:1").tell(Wake())
    await trio.sleep(5)

    assert await one.status(left) == "completed"


async def test_who_waits_for_an_execution_hears_of_its_end_elsewhere(
    servers: Two, components: Components
) -> None:
    """Whether it was known to run there or was to be run here; its nodes run once."""
    one, two = servers
    components["a"] = gate = Gate()
    execution_id = await one.start()
    await gate.arrived.wait()
    over: list[str] = []

    async def wait(request: Run | Join) -> None:
        await two.manager.ask(request, timeout=100.0)
        over.append(await two.status(execution_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, Join(execution_id))
        nursery.start_soon(wait, Run(execution_id))
        await trio.sleep(3)
        early = list(over)
        gate.open.set()

    assert early == []
    assert over == ["completed", "completed"]
    assert len(await one.logs(execution_id, "a")) == 1

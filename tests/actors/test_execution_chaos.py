"""Any graph, any moment: crashes, restarts and cancels never leave a run half told."""

from random import Random

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.actors.manager_messages import Start
from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall, NodeError
from pipelit.store.queries.executions import TERMINAL
from tests.engine.runs import ROUTES, check_story, plan_of, random_graph
from tests.kit.flows import leave_behind
from tests.kit.tree import Tree, add_people, open_tree


class BoomError(Exception):
    """What a test plants."""


class Nodes:
    """Nodes that take some time, fail now and then, wait, and choose routes."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.given: dict[str, int] = {}

    async def __call__(self, call: NodeCall) -> Outcome:
        node = call.node.node_id
        await trio.sleep(self.chance.uniform(0, 2))
        if self.chance.random() < 0.15:
            raise NodeError("no", code="Odd", retryable=self.chance.random() < 0.8)
        self.given[node] = self.given.get(node, 0) + 1
        if node[0] == "l":
            return Outcome(ports={}, loop_items=list(range(self.chance.randint(0, 2))))
        return Outcome(
            ports={"output": self.given[node]},
            route=self.chance.choice(ROUTES) if node[0] == "s" else None,
            delay_seconds=5.0 if self.chance.random() < 0.1 else None,
        )


async def disturb(tree: Tree, execution_id: str, chance: Random, crashes: list[int]) -> bool:
    """Do something to the run after a while. Returns whether the server is to go."""
    await trio.sleep(chance.uniform(0, 3))
    match chance.choice(["nothing", "actor", "manager", "server", "hub", "cancel"]):
        case "actor" if crashes:
            crashes.pop()
            tree.faults.crash_next(paths.execution(execution_id), BoomError())
        case "manager" if crashes:
            crashes.pop()
            tree.faults.crash_next(paths.MANAGER, BoomError())
            tree.manager.tell(Start(()))
        case "server":
            return True
        case "cancel" if chance.random() < 0.3:
            await tree.cancel(execution_id)
            assert await tree.status(execution_id) in TERMINAL
        case _:
            pass
    return False


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_a_run_is_told_completely(
    store_url: URL, clock: MockClock, seed: int
) -> None:
    """Each node ends once, events are gapless and in order, nobody owns the execution any more."""
    chance = Random(seed)
    names, edges = random_graph(chance, chance.randint(3, 20))
    continuing = {name: {"on_error": "continue"} for name in names if chance.random() < 0.7}
    nodes: dict[str, Component] = {
        kind: Nodes(chance) for kind in ("merge", "switch", "error_handler", "reply_chat", "loop")
    }
    crashes = [1, 2, 3]  # as many in a row are survived
    execution_id, epoch = "", 0
    while True:
        epoch += 1
        async with open_tree(
            store_url, clock, nodes, epoch=epoch, grace=chance.choice([0.1, 5.0]), max_parallel=3
        ) as tree:
            if not execution_id:
                await add_people(tree.store)
                await tree.workflow(*edges, **continuing)
                execution_id = await tree.start()
            while await tree.status(execution_id) not in TERMINAL:
                if await disturb(tree, execution_id, chance, crashes):
                    break
            else:
                await tree.gone(execution_id)
                break
        if crashes and chance.random() < 0.5:
            crashes.pop()
            leave_behind(store_url, epoch=epoch)
        assert epoch < 100

    await check(store_url, clock, execution_id, edges)


async def check(url: URL, clock: MockClock, execution_id: str, edges: tuple[str, ...]) -> None:
    async with open_tree(url, clock, {}, epoch=1000) as tree:
        row = await tree.row(execution_id)
        events = await tree.events(execution_id)
        assert [event.seq for event in events] == list(range(1, row.last_seq + 1))
        assert (row.owner, row.epoch) == (None, None)
        assert row.error_code in {None, "Odd"}
        if [event.type for event in events] == ["execution_cancelled"]:
            return
        check_story(events, plan_of(*edges))
        logs = await tree.logs(execution_id)
        told = [e.data["node_id"] for e in events if e.data.get("status") in TOLD]
        assert [log["node_id"] for log in logs] == ["t", *told]


TOLD = {"success", "failed", "skipped"}

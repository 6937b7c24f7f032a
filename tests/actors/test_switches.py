"""Nodes stop at once when their run is to end, whatever its actor waits for."""

import threading

import trio

from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall
from tests.kit.flows import Gate
from tests.kit.tree import Tree


class Stopped:
    """A component that says when it is stopped."""

    def __init__(self) -> None:
        self.arrived, self.stopped = trio.Event(), trio.Event()

    async def __call__(self, call: NodeCall) -> Outcome:
        self.arrived.set()
        try:
            await trio.sleep_forever()
        finally:
            self.stopped.set()


async def test_a_cancel_stops_the_nodes_before_the_disk_takes_a_step(
    tree: Tree, components: dict[str, Component]
) -> None:
    """The end is written as soon as it can be."""
    components["a"], components["b"] = gate, talker = Gate(), Stopped()
    await tree.workflow("t > a", "t > b")
    execution_id = await tree.start()
    await gate.arrived.wait()
    await talker.arrived.wait()
    full, blocked = threading.Event(), trio.Event()
    in_time: list[bool] = []
    token = trio.lowlevel.current_trio_token()

    def hold_up(_: object) -> None:
        token.run_sync_soon(blocked.set)
        in_time.append(full.wait(3.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.store.write, hold_up)
        await blocked.wait()
        gate.open.set()  # its result waits for the disk, and the actor with it
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        nursery.start_soon(tree.cancel, execution_id)
        try:
            await talker.stopped.wait()
            assert in_time == []  # the disk has taken nothing yet
        finally:
            full.set()

    row = await tree.row(execution_id)
    assert row.status == "cancelled"
    assert (await tree.story(execution_id))[-1] == "execution_cancelled"

"""Promise 18: after an end no task, cell, watcher, path or timer is left, and no memory."""

import gc
import math
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import FamilySpec, Restart
from pipelit.actors.runtime.testing import Kit, open_kit
from tests.actors.runtime.puppet import (
    Do,
    Ended,
    Explode,
    Later,
    Note,
    Ping,
    Puppet,
    PuppetMessage,
    PuppetRef,
    examples,
    run,
)

pytestmark = pytest.mark.timeout(110)


def assert_nothing_left(kit: Kit, tasks: int) -> None:
    directory = kit.system.directory
    assert list(directory.cells) == ["/"]
    assert directory.watch_count == 0
    assert len(kit.system.snapshot().children) == 0
    assert trio.lowlevel.current_statistics().tasks_living == tasks


def busy(target: PuppetRef) -> Do:
    """Return a request after which an actor has one of everything."""

    async def step(puppet: Puppet) -> None:
        puppet.ctx.watch(target, partial(Ended, "target"))
        puppet.ctx.watch(puppet.ctx.self_ref, partial(Ended, "self"))
        puppet.ctx.start_soon(trio.sleep_forever)
        puppet.ctx.after(1000, Note())
        puppet.ctx.post(Note())

    return Do(step)


@examples(40)
@given(
    st.lists(st.sampled_from(["stop", "cancel", "crash", "passivate", "ask", "end"]), max_size=10),
    st.random_module(),
)
def test_nothing_is_left_of_an_actor(fates: list[str], interleaving: object) -> None:
    """Promise 18 (P): however it ended, no task, cell, path, watch or timer stays."""

    async def end(puppet: Puppet) -> None:
        puppet.ctx.stop()

    async def main() -> None:
        async with open_kit() as kit:
            tasks = trio.lowlevel.current_statistics().tasks_living
            spec: FamilySpec[PuppetMessage] = FamilySpec(
                id="family", kind="test", start=lambda _key: Puppet(), idle_after=1
            )
            kit.system.start_child("/", spec)
            watched = kit.spawn(Puppet)
            for number, fate in enumerate(fates):
                ref: PuppetRef
                if fate == "passivate":
                    ref = kit.system.ref(f"/family/{number}")
                    await ref.ask(Ping())
                else:
                    ref = kit.spawn(Puppet, restart=list(Restart)[number % 3])
                    await ref.ask(busy(watched))
                match fate:
                    case "crash":
                        ref.tell(Explode())
                    case "cancel":
                        ref.cancel("test")
                    case "ask":
                        with trio.move_on_after(1):
                            await ref.ask(Later(), timeout=math.inf)
                    case "end":
                        ref.tell(Do(end))
                    case _:
                        pass
                await trio.sleep(2)
                if fate != "passivate":
                    ref.stop()
            await trio.sleep(20)
            assert kit.system.directory.watch_count == 0
            watched.stop()
            kit.system.ref("/family").stop()
            await trio.sleep(20)
            assert_nothing_left(kit, tasks)

    run(main)


@pytest.mark.slow
def test_memory_comes_back_after_many_actors() -> None:
    """Promise 18 (P): 30 000 actors started, asked, watched and stopped leave no objects behind."""

    async def spawn_many(kit: Kit, watcher: PuppetRef, count: int) -> None:
        for _ in range(count // 100):
            refs = [kit.spawn(Puppet) for _ in range(100)]
            for ref in refs:
                ref.tell(Note())
                if ref is refs[0]:
                    await watcher.ask(busy(ref))
                    await ref.ask(Ping())
            await kit.settle()
            for ref in refs:
                ref.stop()
            for ref in refs:
                await ref.wait_stopped()
            watcher.cancel("done with it")
            await watcher.wait_stopped()
            watcher = kit.spawn(Puppet, name="watcher")

    async def main() -> None:
        async with open_kit(ring=100, check=False) as kit:
            tasks = trio.lowlevel.current_statistics().tasks_living
            await spawn_many(kit, kit.spawn(Puppet, name="watcher"), 2_000)
            gc.collect()
            before = len(gc.get_objects())
            kit.system.ref("/watcher").cancel("again")
            await kit.system.ref("/watcher").wait_stopped()
            await spawn_many(kit, kit.spawn(Puppet, name="watcher"), 30_000)
            gc.collect()
            after = len(gc.get_objects())
            kit.system.ref("/watcher").stop()
            await kit.system.ref("/watcher").wait_stopped()
            assert_nothing_left(kit, tasks)
            assert after - before < 1_000

    run(main)

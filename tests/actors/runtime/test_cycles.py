"""Promise 17: `AskCycle` for every cycle, never for anything else."""

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import ActorDied, AskCycle, Reply
from pipelit.actors.runtime.testing import Kit, open_kit
from tests.actors.runtime.puppet import Do, Ping, Puppet, PuppetRef, examples, run

pytestmark = pytest.mark.timeout(60)


def chain(refs: list[PuppetRef], path: list[int]) -> Do:
    """Return a request that asks along *path*, each actor in its turn."""

    async def step(_puppet: Puppet) -> list[int]:
        if not path:
            return []
        return [path[0], *await refs[path[0]].ask(chain(refs, path[1:]), timeout=math.inf)]

    return Do(step)


@examples(100)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.random_module())
def test_every_cycle_is_named_and_nothing_else_is(path: list[int], interleaving: object) -> None:
    """Promise 17 (P): along any path of asks, the first one that closes a circle is refused."""
    seen: list[int] = []
    closing = next((p for i, p in enumerate(path) if p in path[:i]), None)

    async def main() -> None:
        async with open_kit() as kit:
            refs: list[PuppetRef] = [kit.spawn(Puppet, name=f"a{number}") for number in range(5)]
            first = refs[path[0]]
            if closing is None:
                seen.extend(await first.ask(chain(refs, path[1:]), timeout=math.inf))
                assert seen == path[1:]
                return
            with pytest.raises(ActorDied):
                await first.ask(chain(refs, path[1:]), timeout=math.inf)
        cycles = [
            record.error
            for record in kit.system.records(event="actor_crashed")
            if record.error and record.error.type == "AskCycle"
        ]
        assert len(cycles) == 1
        names = cycles[0].message.split(" → ")
        assert names[0] == names[-1] == f"/a{closing}"

    run(main)


async def test_a_cycle_of_two_is_named_at_once(kit: Kit) -> None:
    """Promise 17 (U): the asker that closes the circle hears which one, and no time passes."""
    caught: list[AskCycle] = []

    async def ask_back(_puppet: Puppet) -> str:
        try:
            await first.ask(Ping(), timeout=math.inf)
        except AskCycle as cycle:
            caught.append(cycle)
        return "answered"

    async def ask_second(_puppet: Puppet) -> str:
        return str(await second.ask(Do(ask_back), timeout=math.inf))

    first = kit.spawn(Puppet, name="first")
    second = kit.spawn(Puppet, name="second")

    assert await first.ask(Do(ask_second)) == "answered"
    assert caught[0].chain == ("/first", "/second", "/first")
    assert str(caught[0]) == "/first → /second → /first"


async def test_asking_oneself_is_a_cycle(kit: Kit) -> None:
    """Promise 17 (U): an actor in its turn cannot answer itself."""

    async def ask_self(puppet: Puppet) -> int:
        return await puppet.ctx.self_ref.ask(Ping(), timeout=math.inf)

    ref = kit.spawn(Puppet)
    with pytest.raises(ActorDied):
        await ref.ask(Do(ask_self))

    (crash,) = kit.records(ref, "actor_crashed")
    assert crash.error is not None
    assert crash.error.type == "AskCycle"


async def test_an_own_task_holds_no_turn(kit: Kit) -> None:
    """Promise 17 (U): an own task may ask its actor, and whoever waits for its actor."""
    answers: list[int] = []

    async def own_task() -> None:
        answers.append(await callee.ask(Ping(), timeout=math.inf))
        answers.append(await caller.ask(Ping(), timeout=math.inf))

    async def start(puppet: Puppet) -> str:
        puppet.ctx.start_soon(own_task)
        await trio.sleep(1)
        return "started"

    async def call(_puppet: Puppet) -> str:
        return str(await callee.ask(Do(start), timeout=math.inf))

    caller, callee = kit.spawn(Puppet), kit.spawn(Puppet)

    assert await caller.ask(Do(call)) == "started"
    await kit.settle()
    assert answers == [1, 1]


async def test_whoever_has_its_answer_waits_no_more(kit: Kit) -> None:
    """Promise 17 (U): asking back after the reply, or after the asker has left, is no cycle."""
    answers: list[int] = []

    class Early(Puppet):
        """Replies first and asks back in the same turn."""

        async def receive(self, message: Do) -> None:  # type: ignore[override]
            self.reply(message, "early")
            answers.append(await caller.ask(Ping(), timeout=math.inf))

    async def nothing(_puppet: Puppet) -> None:
        pass

    async def call(_puppet: Puppet) -> str:
        return str(await early.ask(Do(nothing)))

    async def call_and_leave(_puppet: Puppet) -> str:
        with trio.move_on_after(1):
            await slow.ask(Do(ask_back_late))
        return "left"

    async def ask_back_late(_puppet: Puppet) -> None:
        await trio.sleep(2)
        answers.append(await caller.ask(Ping(), timeout=math.inf))

    caller, early, slow = kit.spawn(Puppet), kit.spawn(Early), kit.spawn(Puppet)

    assert await caller.ask(Do(call)) == "early"
    assert await caller.ask(Do(call_and_leave)) == "left"
    await trio.sleep(5)
    assert answers == [1, 2]


async def test_a_promised_answer_still_waits_in_its_turn(kit: Kit) -> None:
    """Promise 17 (U): deferring does not free the asker, so asking it back is a cycle."""
    caught: list[AskCycle] = []

    class Deferring(Puppet):
        async def receive(self, message: Do) -> None:  # type: ignore[override]
            later: Reply[object] = self.defer(message)
            try:
                await caller.ask(Ping(), timeout=math.inf)
            except AskCycle as cycle:
                caught.append(cycle)
            later.send("done")

    async def nothing(_puppet: Puppet) -> None:
        pass

    async def call(_puppet: Puppet) -> str:
        return str(await deferring.ask(Do(nothing)))

    caller, deferring = kit.spawn(Puppet), kit.spawn(Deferring)

    assert await caller.ask(Do(call)) == "done"
    assert len(caught) == 1

"""Slow handlers, a late loop, and actors that do not go; and the snapshot that shows them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pipelit.actors.runtime import (
    ActorDied,
    ActorRef,
    ChildSpec,
    FamilySpec,
    Restart,
    SupervisorSpec,
    System,
    open_system,
)
from pipelit.actors.runtime.testing import WALL_START, Kit
from tests.actors.runtime.puppet import Do, Explode, Nap, Note, Ping, Puppet, PuppetMessage

pytestmark = pytest.mark.timeout(60)


class Computer:
    """A processor clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def watched(computer: Computer) -> AsyncIterator[tuple[System, ActorRef[PuppetMessage]]]:
    root = SupervisorSpec(id="root", children=(ChildSpec(id="a", kind="test", start=Puppet),))
    async with open_system(root, perf=computer) as system:
        yield system, system.ref("/a")


async def test_a_step_that_makes_the_loop_late_is_reported() -> None:
    """More than 100 ms in one step: `slow_handler` with the message in hand."""
    computer = Computer()

    async def compute(_puppet: Puppet) -> None:
        computer.now += 0.15

    async with watched(computer) as (system, ref):
        await ref.ask(Do(compute))
        await ref.ask(Ping())

        (slow,) = system.records(event="slow_handler")
    assert slow.actor == "/a"
    assert slow.detail == {"message_type": "Do", "elapsed_ms": 150}


async def test_a_turn_that_computes_long_in_short_steps_is_reported_once() -> None:
    """More than a second of computing in one turn, even if it yields in between."""
    computer = Computer()

    async def compute(_puppet: Puppet) -> None:
        for _ in range(40):
            computer.now += 0.05
            await trio.lowlevel.checkpoint()

    async with watched(computer) as (system, ref):
        await ref.ask(Do(compute))
        await ref.ask(Ping())

        (slow,) = system.records(event="slow_handler")
    assert slow.detail["message_type"] == "Do"
    assert slow.detail["elapsed_ms"] in range(1000, 1101)


async def test_own_tasks_are_no_turns_but_can_make_the_loop_late() -> None:
    """An own task may compute a lot over its life; only a long step is reported."""
    computer = Computer()

    async def work(step: float, times: int) -> None:
        for _ in range(times):
            computer.now += step
            await trio.lowlevel.checkpoint()

    async def start(puppet: Puppet) -> None:
        puppet.ctx.start_soon(work, 0.05, 100)
        puppet.ctx.start_soon(work, 0.2, 1)

    async with watched(computer) as (system, ref):
        await ref.ask(Do(start))
        await wait_all_tasks_blocked()

        (slow,) = system.records(event="slow_handler")
    assert slow.detail == {"message_type": None, "elapsed_ms": 200}


async def test_a_foreign_task_that_holds_the_loop_is_reported_for_the_system() -> None:
    """Whoever makes the loop late is recorded, if only as the root."""
    computer = Computer()
    async with watched(computer) as (system, _):
        computer.now += 0.3
        await trio.lowlevel.checkpoint()

        (slow,) = system.records(event="slow_handler")
        assert slow.actor == "/"
        assert system.loop_lag() >= 0.0


async def test_loop_lag_is_a_share_of_recent_rounds() -> None:
    """The lag that most rounds did not exceed."""
    computer = Computer()
    async with watched(computer) as (system, _):
        for number in range(100):
            computer.now += number / 1000
            await trio.lowlevel.checkpoint()

        assert system.loop_lag(0.0) == 0.0
        assert system.loop_lag(0.5) == pytest.approx(0.05, abs=0.005)
        assert system.loop_lag(1.0) == pytest.approx(0.099)


async def test_without_a_clock_there_is_no_loop_watch(kit: Kit) -> None:
    """Switched off, it costs nothing and says 0."""
    assert kit.system.loop_lag() == 0.0


async def test_an_actor_that_does_not_go_is_reported_stuck(kit: Kit) -> None:
    """Cancelled more than 5 s ago and still running: one record, with the message in hand."""
    ref = kit.spawn(Puppet)

    async def hold_on(_puppet: Puppet) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)

    ref.tell(Do(hold_on))
    await kit.settle()
    ref.cancel("test")
    stuck = await kit.wait_for("actor_stuck", ref)

    assert trio.current_time() == kit.started_at + 5
    assert stuck.detail == {"since_ms": 5000, "handling": "Do"}
    await ref.wait_stopped()
    assert len(kit.records(ref, "actor_stuck")) == 1


async def test_an_actor_that_outstays_its_grace_is_reported_stuck(kit: Kit) -> None:
    """The five seconds begin with the cancellation, which begins with the end of the grace."""
    ref = kit.spawn(Puppet, grace=3)

    async def hold_on(_puppet: Puppet) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)

    ref.tell(Do(hold_on))
    await kit.settle()
    ref.stop()
    await kit.wait_for("actor_stuck", ref)

    assert trio.current_time() == kit.started_at + 8


async def test_an_actor_that_goes_in_time_is_not_stuck(kit: Kit) -> None:
    """No record for an actor that ended within five seconds."""
    ref = kit.spawn(Puppet)
    other = kit.spawn(Puppet)

    ref.cancel("test")
    await trio.sleep(1)
    other.cancel("test")
    await trio.sleep(60)

    assert kit.system.records(event="actor_stuck") == ()


async def test_a_snapshot_is_the_tree_depth_first(kit: Kit) -> None:
    """Supervisors, families, actors and attached tasks, with every field an operator sees."""
    family: FamilySpec[PuppetMessage] = FamilySpec(
        id="chats", kind="chat", start=lambda _key: Puppet()
    )
    kit.system.start_child("/", SupervisorSpec(id="group"))
    kit.system.start_child("/", family)
    busy = kit.spawn(Puppet, name="busy", parent="/group", restart=Restart.TRANSIENT)
    kit.system.ref("/chats/3:12").tell(Note())
    busy.tell(Explode())
    await kit.wait_for("actor_restarted", busy)
    busy.tell(Nap(10))
    await kit.settle()
    busy.tell(Note())
    await trio.sleep(2.5)

    async with kit.probe("probe"):
        tree = kit.system.snapshot()

    assert [(info.path, info.kind, info.parent) for info in tree.walk()] == [
        ("/", "supervisor", None),
        ("/group", "supervisor", "/"),
        ("/group/busy", "test", "/group"),
        ("/chats", "family", "/"),
        ("/chats/3:12", "chat", "/chats"),
        ("/probe", "probe", "/"),
    ]
    info = kit.system.snapshot("/group/busy")
    assert info is not None
    assert (info.state, info.incarnation, info.restarts) == ("running", 2, 1)
    assert (info.handling, info.handling_ms) == ("Nap", 2500)
    assert (info.mailbox_depth, info.mailbox_capacity, info.messages_handled) == (1, 64, 0)
    assert info.started_at is not None
    assert info.started_at.timestamp() == pytest.approx(WALL_START + trio.current_time() - 2.5)
    assert info.last_error is not None
    assert kit.system.snapshot("/nobody") is None


async def test_states_follow_the_life_of_an_actor(kit: Kit) -> None:
    """Starting, running, restarting, stopping."""

    class SlowStart(Puppet):
        async def on_start(self) -> None:
            await trio.sleep(1)

        async def on_drain(self) -> None:
            self.ctx.after(1, Note())

    ref = kit.spawn(SlowStart, restart=Restart.TRANSIENT)

    def states() -> Iterator[str | None]:
        while True:
            info = kit.system.snapshot(ref.path)
            yield None if info is None else str(info.state)

    state = states()
    assert next(state) == "starting"
    await trio.sleep(1.5)
    assert next(state) == "running"
    ref.tell(Explode())
    await kit.settle()
    assert next(state) == "restarting"
    await kit.wait_for("actor_restarted", ref)
    ref.stop()
    assert next(state) == "stopping"
    await ref.wait_stopped()
    assert next(state) is None


async def test_planted_faults_strike_where_they_should(kit: Kit) -> None:
    """`crash_next` and `crash_in_own_task` crash the named actor, and nobody else."""
    ref = kit.spawn(Puppet, restart=Restart.TRANSIENT)
    other = kit.spawn(Puppet)

    kit.crash_next(ref, ValueError("planted"))
    ref.tell(Note())
    await kit.wait_for("actor_restarted", ref)
    kit.crash_in_own_task(ref, ValueError("planted too"))
    await kit.settle()

    errors = [r.error.message for r in kit.records(ref, "actor_crashed") if r.error]
    assert errors == ["planted", "planted too"]
    assert await other.ask(Ping()) == 1
    with pytest.raises(ActorDied):
        kit.crash_in_own_task(kit.system.ref("/nobody"), ValueError())

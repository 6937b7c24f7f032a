"""Promise 10: a watch fires exactly once, also on the dead."""

from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import (
    ActorRef,
    Exit,
    ExitReason,
    FamilySpec,
    OnLimit,
    Restart,
    RestartLimit,
)
from pipelit.actors.runtime.testing import Kit, open_kit
from tests.actors.runtime.puppet import (
    Do,
    Ended,
    Explode,
    Note,
    Ping,
    Puppet,
    PuppetMessage,
    PuppetRef,
    examples,
    puppet,
    run,
)

pytestmark = pytest.mark.timeout(60)


def watch(ref: PuppetRef, name: str = "target") -> Do:
    async def step(puppet: Puppet) -> None:
        puppet.ctx.watch(ref, partial(Ended, name))

    return Do(step)


def unwatch(ref: PuppetRef) -> Do:
    async def step(puppet: Puppet) -> None:
        puppet.ctx.unwatch(ref)

    return Do(step)


@examples(60)
@given(
    st.lists(
        st.sampled_from(["crash", "stop", "cancel", "nap", "own", "watch", "end"]), max_size=8
    ),
    st.sampled_from(list(Restart)),
    st.random_module(),
)
def test_a_watch_fires_exactly_once(
    fates: list[str], restart: Restart, interleaving: object
) -> None:
    """Promise 10 (P): whatever happens to the target, each watcher hears of its end once."""
    journals: list[list[str]] = []

    async def end(puppet: Puppet) -> None:
        puppet.ctx.stop()

    async def main() -> None:
        async with open_kit(limit=RestartLimit(10_000)) as kit:
            target = kit.spawn(
                Puppet, restart=restart, limit=RestartLimit(2, then=OnLimit.STOP_CHILD)
            )

            async def add_watcher() -> None:
                journals.append([])
                await kit.spawn(puppet(journals[-1])).ask(watch(target))

            await add_watcher()
            for fate in fates:
                match fate:
                    case "crash":
                        target.tell(Explode())
                    case "own" if target.is_alive():
                        target.tell(Do(end))
                    case "stop":
                        target.stop()
                    case "cancel":
                        target.cancel("test")
                    case "watch":
                        await add_watcher()
                    case _:
                        await trio.sleep(0.3)
            target.stop()
            await target.wait_stopped()
            await add_watcher()
            await kit.settle()

            assert all(len(journal) == 1 for journal in journals)
            assert len({tuple(journal) for journal in journals}) == 1

    run(main)


async def test_a_watch_of_the_dead_fires_at_once_with_what_is_known(kit: Kit) -> None:
    """Promise 10 (U): the ref knows how its actor ended; a foreign path is simply not there."""
    journal: list[str] = []
    watcher = kit.spawn(puppet(journal))
    ref = kit.spawn(Puppet)
    ref.cancel("no longer wanted")
    await ref.wait_stopped()

    await watcher.ask(watch(ref, "known"))
    await watcher.ask(watch(kit.system.ref("/nobody"), "unknown"))
    await watcher.ask(Ping())

    assert journal == ["known cancelled", "unknown killed"]
    assert await kit.system.ref("/nobody").wait_stopped() == Exit(
        ExitReason.KILLED, "no such actor"
    )


async def test_a_restart_is_not_an_exit(kit: Kit) -> None:
    """Promise 10 (U): the watcher of a transient actor hears nothing of its crashes."""
    journal: list[str] = []
    watcher = kit.spawn(puppet(journal))
    ref = kit.spawn(Puppet, restart=Restart.TRANSIENT)
    await watcher.ask(watch(ref))

    ref.tell(Explode())
    await kit.wait_for("actor_restarted", ref)
    assert journal == []
    ref.stop()
    await ref.wait_stopped()
    await kit.settle()

    assert journal == ["target shutdown"]


async def test_passivation_is_not_an_exit_but_the_end_of_the_family_is(kit: Kit) -> None:
    """Promise 10 (U): a watch survives the lives of a member and fires when no more can come."""
    journal: list[str] = []
    watcher = kit.spawn(puppet(journal))
    spec: FamilySpec[PuppetMessage] = FamilySpec(
        id="family", kind="test", start=lambda _key: Puppet(), idle_after=1
    )
    kit.system.start_child("/", spec)
    member: ActorRef[PuppetMessage] = kit.system.ref("/family/a")
    await watcher.ask(watch(member))

    await member.ask(Ping())
    await trio.sleep(5)
    assert not member.is_alive()
    assert journal == []
    kit.system.ref("/family").stop()
    await kit.system.ref("/family").wait_stopped()
    await kit.settle()

    assert journal == ["target shutdown"]


async def test_a_second_watch_replaces_the_first_and_unwatch_forgets(kit: Kit) -> None:
    """Promise 10 (U): one watcher, one path, one notice; or none."""
    journal: list[str] = []
    watcher = kit.spawn(puppet(journal))
    first, second = kit.spawn(Puppet), kit.spawn(Puppet)
    for name in ("old", "new"):
        await watcher.ask(watch(first, name))
        await watcher.ask(watch(second, name))
    await watcher.ask(unwatch(second))
    await watcher.ask(unwatch(second))

    first.stop()
    second.stop()
    await kit.settle()

    assert journal == ["new shutdown"]


async def test_the_watches_of_an_incarnation_end_with_it(kit: Kit) -> None:
    """Promise 10 (U): a restarted watcher watches what it watches in its own `on_start`."""
    journal: list[str] = []
    watcher = kit.spawn(puppet(journal), restart=Restart.TRANSIENT)
    ref = kit.spawn(Puppet)
    await watcher.ask(watch(ref))
    watcher.tell(Explode())
    await kit.wait_for("actor_restarted", watcher)

    ref.stop()
    await ref.wait_stopped()
    await watcher.ask(Ping())

    assert journal == []


async def test_an_exit_message_that_cannot_be_made_is_the_watchers_crash(kit: Kit) -> None:
    """`on_exit` runs in the watcher's turn, so its failure is the watcher's."""
    watcher = kit.spawn(Puppet, restart=Restart.TRANSIENT)
    ref = kit.spawn(Puppet)

    async def watch_badly(puppet: Puppet) -> None:
        puppet.ctx.watch(ref, lambda exit_: Note(str(1 / 0)))

    await watcher.ask(Do(watch_badly))
    ref.stop()
    await kit.wait_for("actor_restarted", watcher)

    assert kit.events(ref) == ["actor_started", "actor_stopped"]


async def test_refs_to_one_path_are_equal(kit: Kit) -> None:
    """A ref is its path: equal, hashable, readable."""
    ref = kit.spawn(Puppet, name="a")

    assert ref == kit.system.ref("/a")
    assert ref != kit.system.ref("/b")
    assert ref != "/a"
    assert {ref, kit.system.ref("/a")} == {ref}
    assert repr(ref) == "<ActorRef /a>"

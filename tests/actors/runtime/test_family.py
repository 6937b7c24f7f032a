"""Promise 9: members of a family start on demand, and passivation loses and doubles nothing."""

from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import (
    ActorDied,
    Backoff,
    ChildSpec,
    Exit,
    Family,
    FamilySpec,
    Mailbox,
    OnLimit,
    RestartLimit,
)
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
    examples,
    run,
)

pytestmark = pytest.mark.timeout(60)


class Slow(Puppet):
    """Takes a while to end, so that mail can arrive meanwhile."""

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        await trio.sleep(0.5)


def family_of(
    journal: list[str],
    kind: type[Puppet] = Puppet,
    *,
    idle_after: float = 10.0,
    limit: RestartLimit | None = None,
    capacity: int = 64,
) -> FamilySpec[PuppetMessage]:
    return FamilySpec(
        id="family",
        kind="test",
        start=lambda _key: kind(journal),
        idle_after=idle_after,
        limit=limit or RestartLimit(then=OnLimit.STOP_CHILD),
        mailbox=Mailbox(capacity),
        backoff=Backoff(first=1, jitter=0),
        detail=lambda key: {"thread_id": key},
    )


def start_family(kit: Kit, spec: FamilySpec[PuppetMessage]) -> Family[PuppetMessage]:
    kit.system.start_child("/", spec)
    return kit.system.family("/family")


@examples(80)
@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.9, 1.0, 1.1, 1.25, 1.5, 1.6]), max_size=30),
    st.random_module(),
)
def test_passivation_loses_and_doubles_nothing(gaps: list[float], interleaving: object) -> None:
    """Promise 9 (P): sends before, at, inside and after the window arrive once, in order."""
    journal: list[str] = []

    async def main() -> None:
        spec = family_of(journal, Slow, idle_after=1.0)
        async with open_kit() as kit:
            member = start_family(kit, spec).ref("a")
            for number, gap in enumerate(gaps):
                await trio.sleep(gap)
                member.tell(Note(str(number)))
            await trio.sleep(10)
            assert not member.is_alive()

        assert journal == [str(number) for number in range(len(gaps))]
        assert {record.event for record in kit.records(member)} <= {
            "actor_started",
            "actor_stopped",
        }

    run(main)


async def test_a_ref_costs_nothing_and_the_first_send_starts_the_member(kit: Kit) -> None:
    """`family.ref` starts nothing; lookup and start are one step, so a key never has two."""
    journal: list[str] = []
    family = start_family(kit, family_of(journal))
    member = family.ref("a")
    await trio.sleep(1)
    assert not member.is_alive()

    member.tell(Note("1"))
    family.ref("a").tell(Note("2"))
    assert await member.ask(Ping()) == 1

    assert journal == ["1", "2"]
    assert kit.events(member) == ["actor_started"]
    (started,) = kit.records(member)
    assert started.detail["thread_id"] == "a"
    assert started.parent == "/family"


@pytest.mark.parametrize("key", ["", "a/b"])
async def test_a_key_is_one_step_of_a_path(kit: Kit, key: str) -> None:
    """A key without text or with a slash is refused; a path like it belongs to nobody."""
    family = start_family(kit, family_of([]))

    with pytest.raises(ValueError, match="without a slash"):
        family.ref(key)
    with pytest.raises(ActorDied):
        await kit.system.ref(f"/family/{key}").ask(Ping())


async def test_an_idle_member_ends_and_its_next_message_starts_it_again(kit: Kit) -> None:
    """Promise 9 (U): passivated after exactly `idle_after`; the first life is over."""
    member = start_family(kit, family_of([])).ref("a")

    assert await member.ask(Ping()) == 1
    await trio.sleep(9)
    assert await member.ask(Ping()) == 2
    exit_ = await member.wait_stopped()

    assert exit_.reason == "passivated"
    assert trio.current_time() == kit.started_at + 19
    assert await member.ask(Ping()) == 1
    assert kit.events(member) == ["actor_started", "actor_stopped", "actor_started"]


async def test_own_tasks_and_promised_answers_keep_a_member_awake(kit: Kit) -> None:
    """Idle means no own task and no deferred reply; timers and own posts do not count."""
    member = start_family(kit, family_of([])).ref("a")

    async def work(puppet: Puppet) -> None:
        puppet.ctx.start_soon(trio.sleep, 30)
        for moment in range(5, 100, 5):
            puppet.ctx.after(moment, Note())

    async def answer(puppet: Puppet) -> None:
        puppet.waiting.pop().send("done")

    await member.ask(Do(work))
    await trio.sleep(29)
    assert member.is_alive()
    await trio.sleep(2)
    assert not member.is_alive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.ask, Later(), 1_000)
        await trio.sleep(100)
        assert member.is_alive()
        await member.ask(Do(answer))


async def test_a_promise_to_an_asker_who_left_keeps_nobody_awake(kit: Kit) -> None:
    """A member whose asker has gone away is idle again, though it never answered."""
    member = start_family(kit, family_of([])).ref("a")

    with trio.move_on_after(1):
        await member.ask(Later(), timeout=1_000)
    ended = await member.wait_stopped()

    assert ended.reason == "passivated"
    assert trio.current_time() <= kit.started_at + 20


async def test_a_member_that_ends_itself_with_mail_waiting_begins_again(kit: Kit) -> None:
    """Mail that arrived while a member was ending by itself starts the next life."""
    journal: list[str] = []
    member = start_family(kit, family_of(journal, Slow)).ref("a")

    async def end(puppet: Puppet) -> None:
        puppet.ctx.stop()

    await member.ask(Do(end))
    member.tell(Note("after the end"))
    await trio.sleep(1)

    assert journal == ["after the end"]
    assert kit.events(member) == ["actor_started", "actor_stopped", "actor_started"]


async def test_a_member_that_gives_up_harms_no_other(kit: Kit) -> None:
    """Each member has its own restart window and is stopped when it exceeds it."""
    spec = family_of([], limit=RestartLimit(0, then=OnLimit.STOP_CHILD))
    family = start_family(kit, spec)
    await family.ref("b").ask(Ping())

    with pytest.raises(ActorDied):
        await family.ref("a").ask(Explode())

    assert kit.events(family.ref("a"))[-1] == "actor_gave_up"
    assert await family.ref("b").ask(Ping()) == 2
    assert await family.ref("a").ask(Ping()) == 1


async def test_a_family_may_escalate(kit: Kit) -> None:
    """With `ESCALATE` a member that gives up takes the family along, which comes back."""
    spec = family_of([], limit=RestartLimit(0, then=OnLimit.ESCALATE))
    family = start_family(kit, spec)
    path = kit.system.ref("/family")
    await family.ref("b").ask(Ping())

    family.ref("a").tell(Explode())
    await kit.wait_for("supervisor_escalated", path)
    with pytest.raises(ActorDied):
        await family.ref("a").ask(Ping())
    await kit.wait_for("actor_restarted", path)

    assert await family.ref("b").ask(Ping()) == 1


async def test_a_family_that_stops_stops_its_members_and_starts_no_more(kit: Kit) -> None:
    """All members are asked at once; a later send goes to nobody."""
    family = start_family(kit, family_of([], Slow))
    path = kit.system.ref("/family")
    for key in "abc":
        await family.ref(key).ask(Ping())

    path.stop("enough")
    with pytest.raises(ActorDied):
        await family.ref("d").ask(Ping())
    await path.wait_stopped()

    assert trio.current_time() == kit.started_at + 0.5
    assert kit.events(family.ref("a")) == ["actor_started", "actor_stopped"]
    with pytest.raises(ActorDied):
        await family.ref("a").ask(Ping())


async def test_a_stop_while_passivating_is_final(kit: Kit) -> None:
    """A member that is asked to stop while it passivates ends with `shutdown`, for its watchers."""
    member = start_family(kit, family_of([], Slow, idle_after=1)).ref("a")
    watcher = kit.spawn(Puppet)

    async def watch(puppet: Puppet) -> None:
        puppet.ctx.watch(member, partial(Ended, "a"))

    async def exits(puppet: Puppet) -> list[str]:
        return [ended.exit.reason for ended in puppet.exits]

    await member.ask(Ping())
    await watcher.ask(Do(watch))
    await trio.sleep(1.2)
    member.stop()
    ended = await member.wait_stopped()

    assert ended.reason == "shutdown"
    assert await watcher.ask(Do(exits)) == ["shutdown"]


async def test_mail_before_the_family_has_started_is_kept() -> None:
    """A static family whose turn to start has not come keeps what is sent to its members."""
    journal: list[str] = []

    class First(Puppet):
        async def on_start(self) -> None:
            self.ctx.system.family("/family").ref("a").tell(Note("early"))

    async with open_kit(
        [ChildSpec(id="first", kind="test", start=First), family_of(journal)]
    ) as kit:
        await kit.settle()

    assert journal == ["early"]

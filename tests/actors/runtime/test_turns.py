"""Promises 6 and 19: one turn at a time, and a chatty mailbox starves nobody."""

import itertools
import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import (
    ActorError,
    Backoff,
    ChildSpec,
    Context,
    Exit,
    FamilySpec,
    Mailbox,
    Restart,
    RestartLimit,
    SupervisorSpec,
    get_log_context,
)
from pipelit.actors.runtime.cell import MAX_BURST
from pipelit.actors.runtime.testing import Kit, open_kit
from tests.actors.runtime.puppet import (
    BoomError,
    Do,
    Note,
    Ping,
    Puppet,
    PuppetMessage,
    examples,
    puppet,
    run,
)

pytestmark = pytest.mark.timeout(60)


class Single(Puppet):
    """Checks that nobody else is in a turn, or alive, at its path."""

    def __init__(self, live: dict[str, int], turns: dict[str, int]) -> None:
        super().__init__()
        self.live = live
        self.turns = turns

    async def on_start(self) -> None:
        path = self.ctx.path
        self.live[path] = self.live.get(path, 0) + 1
        assert self.live[path] == 1, "two incarnations"
        await trio.lowlevel.checkpoint()

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        await trio.lowlevel.checkpoint()
        self.live[self.ctx.path] -= 1

    async def receive(self, message: PuppetMessage) -> None:
        path = self.ctx.path
        assert self.turns.get(path, 0) == 0, "two turns"
        self.turns[path] = 1
        try:
            await trio.lowlevel.checkpoint()
            match message:
                case Note(text="crash"):
                    raise BoomError
                case Note(text="post"):
                    self.ctx.post(Note("posted"))
                    self.ctx.after(0.5, Note("timed"))
                    await trio.sleep(0.1)
                case Note(text="own"):
                    self.ctx.start_soon(self._own)
                case Note(text="stop"):
                    self.ctx.stop()
                case _:
                    await trio.sleep(0.2)
        finally:
            self.turns[path] = 0

    async def _own(self) -> None:
        await trio.sleep(0.3)
        self.ctx.post(Note("from own task"))


_TEXTS = ("crash", "post", "own", "stop", "nap")
_WHERE = ("/static", "/family/a", "/family/b", "/dynamic")


@examples(60)
@given(
    st.lists(st.tuples(st.sampled_from(_WHERE), st.sampled_from(_TEXTS), st.integers(0, 2))),
    st.random_module(),
)
def test_one_turn_and_one_incarnation_at_a_time(
    script: list[tuple[str, str, int]], interleaving: object
) -> None:
    """Promise 6 (P): no two turns of an actor overlap, and no two incarnations of a path."""
    live: dict[str, int] = {}
    turns: dict[str, int] = {}

    def make(_key: str = "") -> Single:
        return Single(live, turns)

    async def main() -> None:
        quick = Backoff(first=0.05, cap=0.05)
        many = RestartLimit(10_000, within=60)
        children = (
            ChildSpec(id="static", kind="test", start=make, backoff=quick, mailbox=Mailbox(999)),
            FamilySpec(
                id="family",
                kind="test",
                start=make,
                idle_after=0.6,
                backoff=quick,
                limit=many,
                mailbox=Mailbox(999),
            ),
        )
        async with open_kit(children, limit=many) as kit:
            for path, text, pause in script:
                if path == "/dynamic" and not kit.system.ref(path).is_alive():
                    kit.spawn(
                        make,
                        name="dynamic",
                        restart=Restart.TRANSIENT,
                        limit=many,
                        backoff=quick,
                        mailbox=Mailbox(999),
                    )
                kit.system.ref(path).tell(Note(text))
                await trio.sleep(pause / 3)
        errors = [record.error for record in kit.system.records(event="actor_crashed")]
        assert {error.type for error in errors if error} <= {"BoomError"}
        assert set(live.values()) <= {0}

    run(main)


async def test_state_seen_before_an_await_is_the_state_after_it(kit: Kit) -> None:
    """Promise 6 (U): own posts wait until the turn that made them is over."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal))

    async def post_and_wait(puppet: Puppet) -> None:
        puppet.ctx.post(Note("posted"))
        await trio.sleep(1)
        puppet.journal.append("turn over")

    await ref.ask(Do(post_and_wait))
    await ref.ask(Ping())

    assert journal == ["turn over", "posted"]


async def test_own_posts_are_served_before_everybody_elses(kit: Kit) -> None:
    """The system lane goes first, and is not counted against the capacity."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal), mailbox=Mailbox(2))

    async def post(puppet: Puppet) -> None:
        await trio.sleep(1)
        for number in range(5):
            puppet.ctx.post(Note(f"own {number}"))

    ref.tell(Do(post))
    await kit.settle()
    ref.tell(Note("other 1"))
    ref.tell(Note("other 2"))
    await trio.sleep(2)

    assert journal == ["own 0", "own 1", "own 2", "own 3", "own 4", "other 1", "other 2"]


async def test_a_chatty_mailbox_starves_nobody(kit: Kit) -> None:
    """Promise 19 (U): every 64 turns the rest of the loop has its step.

    Two tasks that are both ready run in either order, so a step of one can be two of the other.
    """
    turns = 0
    most_without_a_step = 0

    class Chatty(Puppet):
        async def receive(self, message: PuppetMessage) -> None:
            nonlocal turns
            turns += 1
            if turns < 20_000:
                self.ctx.post(Note())
            else:
                self.ctx.stop()

    ref = kit.spawn(Chatty)
    ref.tell(Note())
    while ref.is_alive():
        before = turns
        await trio.lowlevel.checkpoint()
        most_without_a_step = max(most_without_a_step, turns - before)

    assert turns == 20_000
    assert most_without_a_step <= 2 * MAX_BURST


async def test_loop_lag_stays_low_beside_a_chatty_mailbox(kit: Kit) -> None:
    """Promise 19 (U): seen by a Trio instrument, no step of a chatty actor holds the loop."""
    steps: list[int] = []
    turns = 0

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            steps.append(turns)

    class Chatty(Puppet):
        async def receive(self, message: PuppetMessage) -> None:
            nonlocal turns
            turns += 1

    ref = kit.spawn(Chatty, mailbox=Mailbox(5_000))
    await kit.settle()
    instrument = Steps()
    trio.lowlevel.add_instrument(instrument)
    for _ in range(5_000):
        ref.tell(Note())
    await kit.settle()
    trio.lowlevel.remove_instrument(instrument)

    assert turns == 5_000
    assert max(after - before for before, after in itertools.pairwise(steps)) <= MAX_BURST


async def test_an_own_task_can_be_cancelled_alone(kit: Kit) -> None:
    """`start_soon` returns the scope of just this task."""
    ref = kit.spawn(Puppet)

    async def start_and_cancel(puppet: Puppet) -> bool:
        scope = puppet.ctx.start_soon(trio.sleep, math.inf, name="sleeper")
        await trio.sleep(1)
        scope.cancel()
        await trio.sleep(1)
        return scope.cancelled_caught

    assert await ref.ask(Do(start_and_cancel)) is True
    assert await ref.ask(Ping()) == 1


async def test_a_timer_posts_once_unless_it_is_cancelled(kit: Kit) -> None:
    """`after` posts its message in so many seconds; `cancel` forgets it."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal))

    async def set_timers(puppet: Puppet) -> None:
        puppet.ctx.after(2, Note("two"))
        puppet.ctx.after(1, Note("one"))
        puppet.ctx.after(3, Note("never")).cancel()

    await ref.ask(Do(set_timers))
    await trio.sleep(10)

    assert journal == ["one", "two"]


async def test_a_context_knows_where_it_is(kit: Kit) -> None:
    """Path, kind, incarnation, correlation ids, and the system, as the spec says."""
    spec = ChildSpec(id="me", kind="chat", start=Puppet, detail={"thread_id": "3:12"})
    ref = kit.system.start_child("/", spec)

    async def look(puppet: Puppet) -> tuple[object, ...]:
        ctx = puppet.ctx
        assert ctx.self_ref == ref
        assert ctx.system is kit.system
        assert not ctx.is_stopping
        ctx.emit("recovered", from_status="running")
        return ctx.path, ctx.kind, ctx.incarnation, ctx.detail, ctx.log_context, get_log_context()

    where = {"actor": "/me", "thread_id": "3:12"}
    assert await ref.ask(Do(look)) == ("/me", "chat", 1, {"thread_id": "3:12"}, where, where)
    assert get_log_context() == {}
    (record,) = kit.system.records(event="recovered")
    assert record.detail == {"thread_id": "3:12", "from_status": "running"}
    assert record.actor == "/me"


async def test_a_child_inherits_nothing_from_who_started_it(kit: Kit) -> None:
    """A child started from a turn has neither that turn's chain nor its log context."""
    kit.system.start_child("/", SupervisorSpec(id="group"))
    parent = kit.spawn(Puppet, name="parent")

    async def start(puppet: Puppet) -> str:
        kit.spawn(Puppet, name="child", parent="/group")
        return "started"

    async def ask_parent(puppet: Puppet) -> int:
        return await parent.ask(Ping())

    await parent.ask(Do(start))

    assert await kit.system.ref("/group/child").ask(Do(ask_parent)) == 1


async def test_nothing_is_started_outside_an_incarnation(kit: Kit) -> None:
    """A timer set while releasing is a bug and recorded as one."""

    class Late(Puppet):
        async def on_stop(self, exit: Exit) -> None:  # noqa: A002
            self.ctx.after(1, Note())

    ref = kit.spawn(Late)
    await kit.settle()
    ref.stop()
    ended = await ref.wait_stopped()

    assert ended.reason == "crashed"


async def test_a_context_that_outlived_its_actor_starts_nothing(kit: Kit) -> None:
    """Whoever kept a context hears that its incarnation is over."""
    ref = kit.spawn(Puppet)

    async def hand_out(puppet: Puppet) -> Context[PuppetMessage]:
        return puppet.ctx

    context = await ref.ask(Do(hand_out))
    ref.stop()
    await ref.wait_stopped()

    with pytest.raises(ActorError, match="outside an incarnation"):
        context.after(1, Note())
    context.post(Note())
    context.stop()

"""Promises 11, 14 and 15: ordered stops, cancellation that is no crash, ends from outside."""

import math

import pytest
import trio

from pipelit.actors.runtime import (
    ActorDied,
    ActorExists,
    ChildSpec,
    Exit,
    FamilySpec,
    Mailbox,
    Restart,
    RestartLimit,
    RestartLimitExceeded,
    SupervisorSpec,
)
from pipelit.actors.runtime.testing import Kit, open_kit
from tests.actors.runtime.puppet import (
    BoomError,
    Do,
    Explode,
    Nap,
    Note,
    Ping,
    Puppet,
    PuppetMessage,
    Recorder,
    puppet,
    run,
)

pytestmark = pytest.mark.timeout(60)


class Slow(Puppet):
    """Drains for two seconds."""

    async def on_drain(self) -> None:
        self.ctx.after(2, Note("drained"))

    async def receive(self, message: PuppetMessage) -> None:
        await super().receive(message)
        if message == Note("drained"):
            self.ctx.stop()


class Stubborn(Puppet):
    """Never drains."""

    async def on_drain(self) -> None:
        self.journal.append("drain")

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        self.journal.append(f"stop {exit.reason}")
        await trio.sleep_forever()


def child(name: str, kind: type[Puppet] = Puppet, grace: float = 5.0) -> ChildSpec[PuppetMessage]:
    return ChildSpec(id=name, kind="test", start=kind, grace=grace)


def test_children_start_in_order_and_stop_in_reverse() -> None:
    """Promise 11 (U): top to bottom, each when the one before is up; bottom to top."""

    class SlowStart(Slow):
        async def on_start(self) -> None:
            await trio.sleep(1)

    async def main() -> None:
        inner = SupervisorSpec(id="inner", children=(child("x", SlowStart), child("y", SlowStart)))
        specs = (child("a", SlowStart), inner, child("b", SlowStart))
        async with open_kit(specs) as kit:
            assert kit.started_at == trio.current_time() == 4
            await trio.sleep(6)
        records = [(r.timestamp % 100, r.event, r.actor) for r in kit.system.records()]
        assert [(event, actor) for _, event, actor in records] == [
            ("actor_started", "/a"),
            ("actor_started", "/inner/x"),
            ("actor_started", "/inner/y"),
            ("actor_started", "/inner"),
            ("actor_started", "/b"),
            ("actor_started", "/"),
            ("actor_stopped", "/b"),
            ("actor_stopped", "/inner/y"),
            ("actor_stopped", "/inner/x"),
            ("actor_stopped", "/inner"),
            ("actor_stopped", "/a"),
            ("actor_stopped", "/"),
        ]
        assert [moment for moment, _, _ in records] == [1, 2, 3, 3, 4, 4, 12, 14, 16, 16, 18, 18]

    run(main)


def test_dynamic_children_stop_all_at_once_before_static_ones() -> None:
    """Promise 11 (U): who came at run time goes first, together."""

    async def main() -> None:
        async with open_kit([child("static", Slow)]) as kit:
            for name in ("x", "y", "z"):
                kit.spawn(Slow, name=name)
            await kit.settle()
        assert trio.current_time() == 4
        stopped = [r.actor for r in kit.system.records(event="actor_stopped")]
        assert set(stopped[:3]) == {"/x", "/y", "/z"}
        assert stopped[3:] == ["/static", "/"]

    run(main)


async def test_an_actor_that_does_not_drain_is_cancelled_after_its_grace(kit: Kit) -> None:
    """Promise 11 (U): grace, then cancellation, then at most two seconds for `on_stop`."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal, Stubborn), grace=3)
    await kit.settle()

    ref.stop("please")
    ended = await ref.wait_stopped()

    assert trio.current_time() == kit.started_at + 3 + 2
    assert (ended.reason, ended.why) == ("killed", "please")
    assert journal == ["drain", "stop killed"]
    (stopped,) = kit.records(ref, "actor_stopped")
    assert stopped.reason == "killed"
    assert stopped.detail == {"uptime_ms": 5000, "messages_handled": 0, "why": "please"}


def test_a_supervisors_grace_bounds_all_its_children() -> None:
    """Promise 11 (U): total time is bounded by the supervisor's own grace, if it has one."""

    async def main() -> None:
        specs = tuple(child(name, Stubborn, grace=100) for name in "abc")
        async with open_kit([SupervisorSpec(id="group", children=specs, grace=10)]) as kit:
            pass
        assert trio.current_time() == 12
        stopped = kit.system.records(event="actor_stopped", actor="/group")
        assert {r.reason for r in stopped} == {"killed", "cancelled"}

    run(main)


async def test_a_stopping_actor_drains_with_own_tasks_alive_and_closed_to_others(
    kit: Kit,
) -> None:
    """Promise 11 (U): queued and new asks fail at once, tells are dead letters, own posts come."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal, Slow))
    ref.tell(Nap(1))
    await kit.settle()
    ref.tell(Note("queued"))

    async def ask(request: Ping) -> None:
        with pytest.raises(ActorDied, match="ended: shutdown"):
            await ref.ask(request, timeout=math.inf)
        assert trio.current_time() == kit.started_at

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, Ping())
        await kit.settle()
        ref.stop()
        nursery.start_soon(ask, Ping())
    ref.tell(Note("late"))
    ref.stop("again")
    ended = await ref.wait_stopped()

    assert trio.current_time() == kit.started_at + 3
    assert ended.reason == "shutdown"
    assert journal == ["drained"]
    assert len(kit.records(ref, "dead_letter")) == 2


async def test_the_running_turn_ends_before_the_drain(kit: Kit) -> None:
    """Promise 11 (U): a stop does not interrupt a turn; its asker has the answer."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal, Recorder))
    answers: list[str] = []

    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await ref.ask(Nap(1)))

        nursery.start_soon(ask)
        await kit.settle()
        ref.stop()

    await ref.wait_stopped()
    assert trio.current_time() == kit.started_at + 1
    assert answers == ["rested"]
    assert journal == ["start", "drain", "stop shutdown"]


async def test_a_stop_during_backoff_ends_at_once(kit: Kit) -> None:
    """An actor that waits for its restart is stopped without another incarnation."""
    ref = kit.spawn(Puppet, restart=Restart.PERMANENT)
    ref.tell(Explode())
    await kit.wait_for("actor_crashed", ref)
    info = kit.system.snapshot(ref.path)
    assert info is not None
    assert info.state == "restarting"

    ref.stop()
    ended = await ref.wait_stopped()

    assert ended.reason == "shutdown"
    assert trio.current_time() == kit.started_at
    assert kit.events(ref) == ["actor_started", "actor_crashed", "actor_stopped"]


async def test_a_stop_before_the_start_leaves_an_actor_unmade(kit: Kit) -> None:
    """An actor that is stopped in the moment it is added never runs, but has its last record."""
    made: list[str] = []

    def make() -> Puppet:
        made.append("made")
        return Puppet()

    ref = kit.spawn(make)
    ref.stop()
    ended = await ref.wait_stopped()

    assert ended.reason == "shutdown"
    assert made == []
    assert kit.events(ref) == ["actor_stopped"]


def test_a_stop_while_starting_starts_no_more() -> None:
    """Promise 11 (U): children whose turn has not come are ended unstarted."""

    class Stopper(Puppet):
        async def on_start(self) -> None:
            self.ctx.system.ref("/").stop("never mind")
            self.ctx.system.ref("/c").cancel("nor this")
            await trio.sleep(1)

    async def main() -> None:
        made: list[str] = []

        def make() -> Puppet:
            made.append("made")
            return Puppet()

        specs = (
            child("a"),
            child("b", Stopper),
            ChildSpec(id="c", kind="test", start=make),
            ChildSpec(id="d", kind="test", start=make),
        )
        async with open_kit(specs) as kit:
            await kit.system.wait_closed()
        assert made == []
        last = [(r.actor, r.reason) for r in kit.system.records(event="actor_stopped")]
        assert ("/d", "shutdown") in last
        assert last[-1] == ("/", "shutdown")

    run(main)


async def test_a_cancel_is_not_a_crash(kit: Kit) -> None:
    """Promise 14 (U): no restart, exit `cancelled` with its reason, `on_stop` ran."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal, Recorder), restart=Restart.PERMANENT)
    ref.tell(Nap(60))
    await kit.settle()

    ref.cancel("user 7")
    ref.cancel("user 8")
    ended = await ref.wait_stopped()

    assert trio.current_time() == kit.started_at
    assert (ended.reason, ended.why, ended.error) == ("cancelled", "user 7", None)
    assert journal == ["start", "stop cancelled"]
    assert kit.events(ref) == ["actor_started", "actor_stopped"]
    ref.cancel("the dead")
    ref.stop("the dead")


async def test_a_cancel_reaches_own_tasks_with_its_reason(kit: Kit) -> None:
    """Promise 14 (U): own tasks end with the incarnation, and the reason is in `Cancelled`."""
    ref = kit.spawn(Puppet)
    seen: list[str | None] = []

    async def own_task() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            seen.append(cancelled.reason)
            raise

    async def start(puppet: Puppet) -> None:
        puppet.ctx.start_soon(own_task)

    await ref.ask(Do(start))
    await kit.settle()
    ref.cancel("limit reached")
    await ref.wait_stopped()

    assert seen == ["limit reached"]


async def test_a_crash_while_being_cancelled_is_recorded_and_final(kit: Kit) -> None:
    """Promise 14 (U): an error in the clean-up is a crash, but nobody is restarted."""
    ref = kit.spawn(Puppet, restart=Restart.PERMANENT)

    async def fail_in_cleanup(_puppet: Puppet) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise BoomError("clean-up")

    ref.tell(Do(fail_in_cleanup))
    await kit.settle()
    ref.cancel("test")
    ended = await ref.wait_stopped()

    assert ended.reason == "crashed"
    (crash,) = kit.records(ref, "actor_crashed")
    assert crash.detail["next"] == "stop"


async def test_cancelling_a_supervisor_cancels_its_children(kit: Kit) -> None:
    """Promise 14 (U): the whole subtree ends, with its last records, and nothing else does."""
    specs = (child("a"), child("b"))
    kit.system.start_child("/", SupervisorSpec(id="group", children=specs))
    group = kit.system.ref("/group")
    await kit.wait_for("actor_started", group)
    other = kit.spawn(Puppet)

    group.cancel("test")
    ended = await group.wait_stopped()

    assert ended.reason == "cancelled"
    stopped = {r.actor: r.reason for r in kit.system.records(event="actor_stopped")}
    assert stopped == {"/group/a": "cancelled", "/group/b": "cancelled", "/group": "cancelled"}
    assert await other.ask(Ping()) == 1


def test_an_outer_cancellation_still_finalises() -> None:
    """Promise 15 (U): asks fail, last records are written, and the cancellation goes on."""

    async def main() -> None:
        journal: list[str] = []
        outcomes: list[str] = []
        spec: FamilySpec[PuppetMessage] = FamilySpec(
            id="family", kind="test", start=lambda _key: Puppet()
        )

        async def ask(kit: Kit, path: str, request: Nap) -> None:
            try:
                await kit.system.ref(path).ask(request, timeout=math.inf)
            except ActorDied as error:
                outcomes.append(str(error.exit.reason if error.exit else None))

        async with trio.open_nursery() as askers:
            with trio.move_on_after(10) as scope:
                async with open_kit([child("a"), spec, child("b")]) as kit:
                    ref = kit.spawn(puppet(journal, Recorder), name="r", restart=Restart.PERMANENT)
                    crashing = kit.spawn(Puppet, name="c", restart=Restart.PERMANENT)
                    askers.start_soon(ask, kit, "/r", Nap(60))
                    askers.start_soon(ask, kit, "/r", Nap(61))
                    askers.start_soon(ask, kit, "/family/x", Nap(60))
                    await trio.sleep(9.99)
                    crashing.tell(Explode())
                    async with kit.system.attach("/", "task", kind="test"):
                        await trio.sleep_forever()

        assert scope.cancelled_caught
        assert trio.current_time() == 10
        assert outcomes == ["cancelled"] * 3
        assert journal == ["start", "stop cancelled"]
        assert kit.events(crashing) == ["actor_started", "actor_crashed", "actor_stopped"]
        assert kit.events(ref) == ["actor_started", "actor_stopped"]
        assert not kit.system.is_running

    run(main)


def test_a_crash_in_an_outer_cancellation_is_recorded_and_the_cancellation_goes_on() -> None:
    """Promises 4 and 15 (U): a group of errors and `Cancelled` is split, losing neither."""

    async def main() -> None:
        async def fail_in_cleanup(_puppet: Puppet) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise BoomError("clean-up")

        with trio.move_on_after(1) as scope:
            async with open_kit() as kit:
                ref = kit.spawn(Puppet, restart=Restart.PERMANENT)
                ref.tell(Do(fail_in_cleanup))
                await trio.sleep_forever()

        assert scope.cancelled_caught
        (crash,) = kit.records(ref, "actor_crashed")
        assert crash.error is not None
        assert crash.error.message == "clean-up"
        assert crash.detail["next"] == "stop"

    run(main)


def test_an_error_of_the_block_comes_out_as_it_is_after_an_ordered_stop() -> None:
    """The block's own exception is not wrapped; the tree is stopped in order first."""

    async def main() -> None:
        with pytest.raises(BoomError, match="the block"):
            async with open_kit([child("a", Slow)]) as kit:
                raise BoomError("the block")
        assert trio.current_time() == 2
        assert [r.reason for r in kit.system.records(event="actor_stopped")] == ["shutdown"] * 2

    run(main)


async def test_stopping_the_system_waits_for_it_and_can_be_repeated() -> None:
    """`System.stop` returns when the tree has ended; later sends find nobody."""
    async with open_kit([child("a", Slow)]) as kit:
        ended = await kit.system.stop("maintenance")

        assert (ended.reason, ended.why) == ("shutdown", "maintenance")
        assert trio.current_time() == 2
        assert await kit.system.stop("again") == ended == await kit.system.wait_closed()
        assert not kit.system.is_running
        with pytest.raises(ActorDied):
            await kit.system.ref("/a").ask(Ping())
        with pytest.raises(ActorDied):
            kit.spawn(Puppet)


async def test_a_path_has_one_actor_at_a_time(kit: Kit) -> None:
    """A second start at a path in use is refused; when it is free it can be used again."""
    ref = kit.spawn(Puppet, name="a")

    with pytest.raises(ActorExists, match="/a: already there"):
        kit.spawn(Puppet, name="a")
    ref.stop()
    await ref.wait_stopped()
    kit.spawn(Puppet, name="a")

    assert await ref.ask(Ping()) == 1


async def test_only_supervisors_take_children(kit: Kit) -> None:
    """`start_child` under an actor, a family or nobody is refused."""
    spec: FamilySpec[PuppetMessage] = FamilySpec(
        id="family", kind="test", start=lambda _key: Puppet()
    )
    kit.system.start_child("/", spec)
    kit.spawn(Puppet, name="a")

    for parent in ("/a", "/family", "/nobody"):
        with pytest.raises(ActorDied):
            kit.spawn(Puppet, parent=parent)


async def test_a_supervisor_that_is_giving_up_takes_no_children(kit: Kit) -> None:
    """Between escalation and restart `start_child` says so."""
    spec = SupervisorSpec(id="group", limit=RestartLimit(0), children=(child("a"),))
    kit.system.start_child("/", spec)
    group = kit.system.ref("/group")
    await kit.wait_for("actor_started", group)
    kit.spawn(Puppet, parent="/group", name="dynamic")

    kit.system.ref("/group/a").tell(Explode())
    await kit.wait_for("supervisor_escalated", group)

    with pytest.raises(ActorDied):
        kit.spawn(Puppet, parent="/group")
    await kit.wait_for("actor_restarted", group)
    assert await kit.spawn(Puppet, parent="/group", name="dynamic").ask(Ping()) == 1


async def test_a_child_added_while_its_supervisor_starts_is_started_with_it() -> None:
    """`start_child` may come before the supervisor's turn to start; the ref is usable at once."""

    class Adder(Puppet):
        async def on_start(self) -> None:
            self.ctx.system.start_child("/group", child("early"))
            self.ctx.system.ref("/group/early").tell(Note())

    async with open_kit([child("adder", Adder), SupervisorSpec(id="group")]) as kit:
        assert await kit.system.ref("/group/early").ask(Ping()) == 1


async def test_children_of_a_parent_that_never_began_end_with_it() -> None:
    """Promise 18 (U): what was added in advance has its last record and frees its path."""

    class Adder(Puppet):
        async def on_start(self) -> None:
            system = self.ctx.system
            system.start_child("/group", child("early"))
            system.family("/family").ref("a").tell(Note())
            system.ref("/").stop()
            await trio.sleep(1)

    family: FamilySpec[PuppetMessage] = FamilySpec(
        id="family", kind="test", start=lambda _key: Puppet()
    )
    group = SupervisorSpec(id="group")
    async with open_kit([child("adder", Adder), group, family]) as kit:
        await kit.system.wait_closed()

    assert kit.system.directory.cells == {}
    stopped = [record.actor for record in kit.system.records(event="actor_stopped")]
    assert stopped == ["/family/a", "/family", "/group/early", "/group", "/adder", "/"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: child(""),
        lambda: child("a/b"),
        lambda: SupervisorSpec(id="a/b"),
        lambda: FamilySpec(id="", kind="test", start=lambda _key: Puppet()),
        lambda: SupervisorSpec(id="a", children=(child("x"), child("x"))),
    ],
)
def test_a_tree_that_cannot_be_is_refused_where_it_is_written_down(
    make: type[SupervisorSpec],
) -> None:
    """Ids are one step of a path, and siblings have different ones."""
    with pytest.raises(ValueError, match=r"slash|one id"):
        make()


def test_a_nested_failure_carries_every_cause() -> None:
    """Promise 4 (U): from the root's error one can walk down to the crash."""

    async def main() -> None:
        inner = SupervisorSpec(id="inner", limit=RestartLimit(0), children=(child("a"),))

        async def explode() -> None:
            async with open_kit([inner], limit=RestartLimit(0)) as kit:
                kit.system.ref("/inner/a").tell(Explode("bottom"))
                await trio.sleep_forever()

        with pytest.raises(RestartLimitExceeded) as caught:
            await explode()
        outer = caught.value
        assert outer.path == "/inner"
        assert isinstance(outer.__cause__, RestartLimitExceeded)
        assert outer.__cause__.path == "/inner/a"
        assert isinstance(outer.__cause__.__cause__, BoomError)

    run(main)


def test_a_mailbox_survives_until_its_actor_first_starts() -> None:
    """All static mailboxes are there before the first child runs."""
    journal: list[str] = []

    class Early(Puppet):
        async def on_start(self) -> None:
            self.ctx.system.ref("/late").tell(Note("hello"))

    async def main() -> None:
        late = ChildSpec(id="late", kind="test", start=puppet(journal), mailbox=Mailbox(1))
        async with open_kit([child("early", Early), late]) as kit:
            await kit.settle()

    run(main)
    assert journal == ["hello"]

"""Promises 3 and 4: a crash never cancels a sibling, and no exception is lost."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import (
    ActorDied,
    ActorRestarting,
    Backoff,
    ChildSpec,
    Directive,
    Exit,
    ExitReason,
    Restart,
    RestartLimit,
    RestartLimitExceeded,
)
from pipelit.actors.runtime.testing import Kit, open_kit
from tests.actors.runtime.puppet import (
    BoomError,
    Do,
    Explode,
    Ping,
    Puppet,
    PuppetMessage,
    PuppetRef,
    examples,
    puppet,
    run,
)

pytestmark = pytest.mark.timeout(60)

MANY = RestartLimit(10_000, within=60)


class Sentinel(Puppet):
    """Sleeps through everything; says so if it is cancelled before it is asked to stop."""

    async def on_start(self) -> None:
        self.ctx.start_soon(self._sleep)

    async def _sleep(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.journal.append("shutdown" if self.ctx.is_stopping else "cancelled")


class Fragile(Puppet):
    """Crashes where it is told to; `plan` is shared by its incarnations."""

    def __init__(self, plan: list[str], raised: list[str]) -> None:
        super().__init__()
        self.plan = plan
        self.raised = raised

    def _raise(self, where: str) -> None:
        if where in self.plan:
            self.plan.remove(where)
            self.raised.append(f"{where} {len(self.raised)}")
            raise BoomError(self.raised[-1])

    async def on_start(self) -> None:
        self._raise("start")

    async def on_drain(self) -> None:
        self._raise("drain")
        await super().on_drain()

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002
        self._raise("stop")

    async def receive(self, message: Ping) -> None:  # type: ignore[override]
        self._raise("turn")
        if "own task" in self.plan:
            self.ctx.start_soon(self._own_task)
        if "two own tasks" in self.plan:
            self.plan.remove("two own tasks")
            self.plan.extend(["own task", "own task"])
            self.ctx.start_soon(self._own_task)
            self.ctx.start_soon(self._own_task)
        self.reply(message, 1)

    async def _own_task(self) -> None:
        self._raise("own task")


_PLACES = ("start", "turn", "own task", "two own tasks", "stop")


@examples(60)
@given(
    st.lists(st.lists(st.sampled_from(_PLACES), max_size=3), max_size=12),
    st.sampled_from([Restart.PERMANENT, Restart.TRANSIENT, Restart.TEMPORARY]),
    st.random_module(),
)
def test_a_crash_never_cancels_a_sibling_and_is_never_lost(
    rounds: list[list[str]], restart: Restart, interleaving: object
) -> None:
    """Promises 3 and 4 (P): siblings sleep on; as many errors are recorded as were raised."""
    plan: list[str] = []
    raised: list[str] = []
    journal: list[str] = []

    async def main() -> None:
        async with open_kit() as kit:
            kit.spawn(puppet(journal, Sentinel))
            ref = kit.spawn(
                lambda: Fragile(plan, raised),
                restart=restart,
                limit=MANY,
                backoff=Backoff(first=0.5, cap=1.0),
            )
            for places in rounds:
                plan.extend(places)
                ref.tell(Ping())
                await kit.settle()
                await trio.sleep(2)
            assert "cancelled" not in journal

        crashes = kit.records(ref, "actor_crashed")
        recorded = "".join(record.error.traceback for record in crashes if record.error)
        for text in raised:
            assert f"BoomError: {text}\n" in recorded
        assert recorded.count("BoomError: ") == len(raised)

    run(main)


async def test_a_crash_never_cancels_a_sibling(kit: Kit) -> None:
    """Promise 3 (U): the sibling's task is not even woken."""
    journal: list[str] = []
    sentinel = kit.spawn(puppet(journal, Sentinel))
    await kit.settle()
    ref = kit.spawn(Puppet, restart=Restart.TEMPORARY)

    ref.tell(Explode())
    await kit.settle()

    assert kit.events(ref) == ["actor_started", "actor_crashed"]
    assert journal == []
    assert await sentinel.ask(Ping()) == 1


@pytest.mark.parametrize("place", ["start", "turn", "own task", "drain", "stop"])
async def test_an_error_is_recorded_wherever_it_is_raised(kit: Kit, place: str) -> None:
    """Promise 4 (U): start, turn, own task, drain and stop: each has its record and traceback."""
    raised: list[str] = []
    ref = kit.spawn(lambda: Fragile([place], raised))

    if place != "start":
        ref.tell(Ping())
        await kit.settle()
        ref.stop()
    ended = await ref.wait_stopped()

    (crash,) = kit.records(ref, "actor_crashed")
    assert crash.error is not None
    assert (crash.error.type, crash.error.message) == ("BoomError", f"{place} 0")
    assert "raise BoomError(self.raised[-1])" in crash.error.traceback
    assert crash.reason == "crashed"
    assert ended == Exit(ExitReason.CRASHED, None, crash.error)


async def test_an_error_of_the_factory_is_recorded(kit: Kit) -> None:
    """Promise 4 (U): an actor that cannot even be made has crashed."""

    def fail() -> Puppet:
        raise BoomError("no actor")

    ref = kit.spawn(fail)
    await ref.wait_stopped()

    assert kit.events(ref) == ["actor_crashed"]


async def test_a_group_of_errors_is_recorded_whole_and_a_group_of_one_unwrapped(kit: Kit) -> None:
    """Promise 4 (U): two own tasks that fail together are one crash with two errors."""
    raised: list[str] = []
    ref = kit.spawn(lambda: Fragile(["two own tasks"], raised))
    lone = kit.spawn(lambda: Fragile(["own task"], raised))

    ref.tell(Ping())
    lone.tell(Ping())
    await ref.wait_stopped()
    await lone.wait_stopped()

    (crash,) = kit.records(ref, "actor_crashed")
    assert crash.error is not None
    assert crash.error.type == "ExceptionGroup"
    assert crash.error.traceback.count("BoomError: own task") == 2
    (crash,) = kit.records(lone, "actor_crashed")
    assert crash.error is not None
    assert crash.error.type == "BoomError"


async def test_a_second_error_while_releasing_joins_the_first(kit: Kit) -> None:
    """Promise 4 (U): one crash, one record, two errors."""
    raised: list[str] = []
    ref = kit.spawn(lambda: Fragile(["turn", "stop"], raised))

    ref.tell(Ping())
    await ref.wait_stopped()

    (crash,) = kit.records(ref, "actor_crashed")
    assert crash.error is not None
    assert "BoomError: turn 0" in crash.error.traceback
    assert "BoomError: stop 1" in crash.error.traceback


async def test_the_last_error_of_a_restarted_actor_is_in_the_snapshot(kit: Kit) -> None:
    """Promise 4 (U): `last_error` outlives the incarnation that raised it."""
    ref = kit.spawn(Puppet, restart=Restart.TRANSIENT)
    ref.tell(Explode("the last"))

    await kit.wait_for("actor_restarted", ref)

    info = kit.system.snapshot(ref.path)
    assert info is not None
    assert info.last_error is not None
    assert info.last_error.message == "the last"
    assert (info.restarts, info.incarnation) == (1, 2)


async def _explode_under(spec: ChildSpec[PuppetMessage], text: str) -> None:
    async with open_kit([spec]) as kit:
        kit.system.ref("/a").tell(Explode(text))
        await trio.sleep_forever()


def test_an_escalation_ends_the_system_with_the_crash_as_its_cause() -> None:
    """Promise 4 (U): the root gives up; its error leads to the crash that caused it."""

    async def main() -> None:
        spec = ChildSpec(id="a", kind="test", start=Puppet, limit=RestartLimit(0))
        with pytest.raises(RestartLimitExceeded, match="/a: gave up") as caught:
            await _explode_under(spec, "fatal")
        assert isinstance(caught.value.__cause__, BoomError)
        assert str(caught.value.__cause__) == "fatal"

    run(main)


def test_a_root_that_gives_up_does_not_hide_what_else_went_wrong() -> None:
    """Promise 4 (U): the block's own error and the root's failure come out together."""

    async def main() -> None:
        spec = ChildSpec(id="a", kind="test", start=Puppet, limit=RestartLimit(0))
        async with open_kit([spec]) as kit:
            try:
                kit.system.ref("/a").tell(Explode())
                await trio.sleep_forever()
            finally:
                raise BoomError("in the block")

    with pytest.RaisesGroup(RestartLimitExceeded, BoomError):
        run(main)


def test_a_root_that_cannot_start_ends_the_system() -> None:
    """A static child that never comes up takes the root along; the block does not begin."""

    async def main() -> None:
        raised: list[str] = []
        spec = ChildSpec(id="a", kind="test", start=lambda: Fragile(["start"] * 9, raised))
        with pytest.raises(RestartLimitExceeded):
            async with open_kit([spec]):
                pytest.fail("the block began")
        assert len(raised) == 4

    run(main)


async def test_decide_chooses_what_follows_a_crash(kit: Kit) -> None:
    """`decide` sees the error and answers restart, stop or escalate."""
    seen: list[str] = []

    def decide(error: Exception) -> Directive:
        seen.append(str(error))
        return Directive.STOP if str(error) == "bad" else Directive.RESTART

    ref = kit.spawn(Puppet, restart=Restart.PERMANENT, decide=decide)
    with pytest.raises(ActorRestarting):
        await ref.ask(Explode("harmless"))
    with pytest.raises(ActorDied):
        await ref.ask(Explode("bad"))

    assert seen == ["harmless", "bad"]
    assert [r.detail["next"] for r in kit.records(ref, "actor_crashed")] == ["restart", "stop"]
    assert not ref.is_alive()


def test_decide_can_escalate_the_first_crash() -> None:
    """An error that must not be survived takes the supervisor along, whatever the limit."""

    async def main() -> None:
        spec = ChildSpec(
            id="a", kind="test", start=Puppet, decide=lambda _error: Directive.ESCALATE
        )
        with pytest.raises(RestartLimitExceeded):
            await _explode_under(spec, "corrupt")

    run(main)


async def test_a_decide_that_fails_is_part_of_the_crash(kit: Kit) -> None:
    """Promise 4 (U): a broken `decide` harms nobody and its error is recorded too."""

    def decide(_error: Exception) -> Directive:
        raise BoomError("cannot decide")

    ref = kit.spawn(Puppet, restart=Restart.TRANSIENT, decide=decide)
    ref.tell(Explode("first"))

    await kit.wait_for("actor_restarted", ref)

    (crash,) = kit.records(ref, "actor_crashed")
    assert crash.error is not None
    assert "BoomError: first" in crash.error.traceback
    assert "BoomError: cannot decide" in crash.error.traceback


async def test_an_error_without_text_is_still_recorded(kit: Kit) -> None:
    """Promise 4 (U): an exception whose `str` fails does not escape the wrapper."""

    class WordlessError(Exception):
        def __str__(self) -> str:
            raise BoomError("no words")

    ref = kit.spawn(Puppet)
    kit.crash_next(ref, WordlessError())
    ref.tell(Ping())
    await ref.wait_stopped()

    (crash,) = kit.records(ref, "actor_crashed")
    assert crash.error is not None
    assert crash.error.type == "WordlessError"


def test_an_interrupt_passes_through_and_still_finalises() -> None:
    """`KeyboardInterrupt` in an actor ends the process, but the actor has its last record."""

    async def main() -> None:
        async def interrupt(_puppet: Puppet) -> None:
            raise KeyboardInterrupt

        async with open_kit() as kit:
            ref: PuppetRef = kit.spawn(Puppet, restart=Restart.PERMANENT)
            ref.tell(Do(interrupt))
            await trio.sleep_forever()

    with pytest.raises(BaseException) as caught:
        run(main)
    _, rest = (
        caught.value.split(KeyboardInterrupt)
        if isinstance(caught.value, BaseExceptionGroup)
        else (caught.value, None)
    )
    assert rest is None

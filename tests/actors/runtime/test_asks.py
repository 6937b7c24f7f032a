"""Promises 1, 2 and 7: an ask always ends, at once when its callee does, and harms nobody."""

import math
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import (
    ActorDied,
    ActorError,
    ActorRestarting,
    AskTimeout,
    Backoff,
    ChildSpec,
    FamilySpec,
    Mailbox,
    MailboxFull,
    NoReply,
    Overflow,
    Restart,
    RestartLimit,
    RestartLimitExceeded,
)
from pipelit.actors.runtime.testing import WALL_START, Kit, open_kit
from tests.actors.runtime.puppet import (
    Answer,
    BoomError,
    Do,
    Explode,
    Later,
    Mute,
    Nap,
    Note,
    Ping,
    Puppet,
    PuppetMessage,
    PuppetRef,
    Refuse,
    examples,
    puppet,
    run,
)

pytestmark = pytest.mark.timeout(60)

# What a generated case may do to an actor: ask it something, or end it somehow.
_ASKS = (Ping(), Explode(), Mute(), Nap(3.0), Later(), Refuse())
_FATES = ("stop", "cancel", "own task", "answer", "spawn", "pause", "long pause")
_TARGETS = ("/permanent", "/transient", "/temporary", "/family/a", "/family/b")
_STEPS = st.lists(
    st.tuples(st.sampled_from(_TARGETS), st.sampled_from(_ASKS + _FATES)), max_size=40
)


def _children() -> list[ChildSpec[PuppetMessage] | FamilySpec[PuppetMessage]]:
    def spec(name: str, restart: Restart, overflow: Overflow) -> ChildSpec[PuppetMessage]:
        return ChildSpec(
            id=name,
            kind="test",
            start=Puppet,
            restart=restart,
            mailbox=Mailbox(3, overflow),
            backoff=Backoff(first=2.0, reset_after=5.0),
            grace=1.0,
        )

    return [
        spec("permanent", Restart.PERMANENT, Overflow.REJECT),
        spec("transient", Restart.TRANSIENT, Overflow.DROP_OLDEST),
        spec("temporary", Restart.TEMPORARY, Overflow.DROP_NEWEST),
        FamilySpec(
            id="family",
            kind="test",
            start=lambda _key: Puppet(),
            idle_after=4.0,
            mailbox=Mailbox(3),
            grace=1.0,
        ),
    ]


class _Case:
    """One generated case: performs the steps, collects how every ask ended and when."""

    def __init__(self, kit: Kit, askers: trio.Nursery) -> None:
        self.kit = kit
        self.askers = askers
        self.asked = 0
        # (kind of end, when asked, when ended)
        self.ends: list[tuple[str, float, float]] = []
        self.ordered: list[float] = []

    async def step(self, path: str, what: PuppetMessage | str) -> None:
        ref: PuppetRef = self.kit.system.ref(path)
        if not isinstance(what, str):
            self.asked += 1
            self.askers.start_soon(self._ask, ref, what)
            await trio.lowlevel.checkpoint()
            return
        self.ordered.append(trio.current_time())
        match what:
            case "stop":
                ref.stop()
            case "cancel":
                ref.cancel("test")
            case "own task":
                await self._crash_own_task(ref)
            case "answer":
                await self._answer(ref)
            case "spawn" if path == "/temporary" and not ref.is_alive():
                self.kit.spawn(Puppet, name="temporary", mailbox=Mailbox(3), grace=1.0)
            case "pause":
                await trio.sleep(0.5)
            case "long pause":
                await trio.sleep(6.0)

    async def _crash_own_task(self, ref: PuppetRef) -> None:
        with suppress(ActorError, RuntimeError):  # it may be between two incarnations, or ending
            self.kit.crash_in_own_task(ref, BoomError("own task"))
        await trio.lowlevel.checkpoint()

    async def _answer(self, ref: PuppetRef) -> None:
        async def answer(puppet: Puppet) -> None:
            if puppet.waiting:
                puppet.waiting.pop(0).send("at last")

        self.asked += 1
        self.askers.start_soon(self._ask, ref, Do(answer))
        await trio.lowlevel.checkpoint()

    async def _ask(self, ref: PuppetRef, request: Ping) -> None:
        began = trio.current_time()
        try:
            await ref.ask(request, timeout=math.inf)
            end = "reply"
        except (ActorError, BoomError) as error:
            end = type(error).__name__
        self.ends.append((end, began, trio.current_time()))


@examples(80)
@given(_STEPS, st.sampled_from([3, 10_000]), st.random_module())
def test_every_ask_ends_and_death_answers_at_once(
    steps: list[tuple[str, PuppetMessage | str]], restarts: int, interleaving: object
) -> None:
    """Promises 1 and 2 (P): whatever happens, every ask ends; a death answers without delay.

    With few restarts allowed the root itself gives up in some cases: asks end then, too.
    """

    async def main() -> None:
        cases: list[_Case] = []
        async with trio.open_nursery() as askers:
            with suppress(RestartLimitExceeded):
                async with open_kit(_children(), limit=RestartLimit(restarts)) as kit:
                    cases.append(case := _Case(kit, askers))
                    for path, what in steps:
                        await case.step(path, what)
                    await kit.settle()
                    case.ordered.append(trio.current_time())

        (case,) = cases
        assert len(case.ends) == case.asked
        moments = {record.timestamp - WALL_START for record in case.kit.system.records()}
        for end, began, ended in case.ends:
            if end in ("ActorDied", "ActorRestarting"):
                assert any(
                    abs(ended - moment) < 1e-6 for moment in (began, *case.ordered, *moments)
                )

    run(main)


async def test_an_ask_ends_at_once_when_its_callee_crashes(kit: Kit) -> None:
    """Promise 2 (U): the asker hears of the crash in the very moment, without any deadline."""
    ref = kit.spawn(Puppet, restart=Restart.TRANSIENT)

    with pytest.raises(ActorRestarting):
        await ref.ask(Explode(), timeout=math.inf)

    assert trio.current_time() == kit.started_at
    await kit.wait_for("actor_restarted", ref)
    assert kit.events(ref) == ["actor_started", "actor_crashed", "actor_restarted"]


@pytest.mark.parametrize("restart", [Restart.TRANSIENT, Restart.TEMPORARY])
async def test_a_deferred_ask_ends_at_once_when_its_callee_crashes(
    kit: Kit, restart: Restart
) -> None:
    """Promise 1 (U): a promised answer dies with the incarnation that promised it."""
    ref = kit.spawn(Puppet, restart=restart)
    expected = ActorRestarting if restart is Restart.TRANSIENT else ActorDied

    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(expected) as caught:
                await ref.ask(Later(), timeout=math.inf)
            assert type(caught.value) is expected

        nursery.start_soon(ask)
        await kit.settle()
        ref.tell(Explode())

    assert trio.current_time() == kit.started_at


async def test_a_queued_ask_ends_at_once_when_its_callee_is_gone_for_good(kit: Kit) -> None:
    """Promise 1 (U): who waits in the queue of an actor that will not come back is told."""
    ref = kit.spawn(Puppet)
    ref.tell(Explode())

    with pytest.raises(ActorDied) as caught:
        await ref.ask(Ping(), timeout=math.inf)

    assert caught.value.exit is not None
    assert caught.value.exit.reason == "crashed"
    assert trio.current_time() == kit.started_at


async def test_a_queued_ask_survives_a_restart(kit: Kit) -> None:
    """Promise 5 (U): an ask behind the crashing message is answered by the next incarnation."""
    ref = kit.spawn(Puppet, restart=Restart.TRANSIENT)
    ref.tell(Explode())

    assert await ref.ask(Ping(), timeout=math.inf) == 1


async def test_an_ask_that_nobody_answers_fails_at_the_end_of_its_turn(kit: Kit) -> None:
    """Promise 1 (U): a forgotten reply is named as the bug it is; the actor goes on."""
    ref = kit.spawn(Puppet)

    with pytest.raises(NoReply, match="no reply to Mute"):
        await ref.ask(Mute(), timeout=math.inf)

    assert await ref.ask(Ping()) == 1


async def test_a_refusal_is_an_answer_and_not_a_crash(kit: Kit) -> None:
    """A refused request raises at the asker; the actor goes on."""
    ref = kit.spawn(Puppet)

    with pytest.raises(BoomError, match="refused"):
        await ref.ask(Refuse())

    assert await ref.ask(Ping()) == 1
    assert kit.events(ref) == ["actor_started"]


async def test_a_deferred_reply_comes_later_and_a_second_one_is_dropped(kit: Kit) -> None:
    """A request can be answered from a later turn, once."""
    ref = kit.spawn(Puppet)
    answers: list[str] = []

    async def answer_twice(puppet: Puppet) -> None:
        pending = puppet.waiting.pop()
        pending.send("first")
        pending.send("second")
        pending.fail(BoomError("third"))

    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await ref.ask(Later(), timeout=math.inf))

        nursery.start_soon(ask)
        await kit.settle()
        await ref.ask(Do(answer_twice))

    assert answers == ["first"]


async def test_a_deferred_request_can_be_refused(kit: Kit) -> None:
    """A promised answer may be a refusal."""
    ref = kit.spawn(Puppet)

    async def refuse(puppet: Puppet) -> None:
        puppet.waiting.pop().fail(BoomError("no"))

    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(BoomError, match="no"):
                await ref.ask(Later(), timeout=math.inf)

        nursery.start_soon(ask)
        await kit.settle()
        await ref.ask(Do(refuse))


async def test_a_told_request_has_nobody_to_answer(kit: Kit) -> None:
    """Reply, refusal and deferred reply to a request that was told, not asked, are dropped."""
    ref = kit.spawn(Puppet)

    for request in (Ping(), Refuse(), Later(), Answer(), Mute()):
        ref.tell(request)

    assert await ref.ask(Ping()) == 2


async def test_a_reply_outside_its_turn_is_a_named_bug(kit: Kit) -> None:
    """Only the message of the running turn can be answered without `defer`."""
    ref = kit.spawn(Puppet)

    async def reply_to_another(puppet: Puppet) -> None:
        puppet.reply(Ping(), 1)

    with pytest.raises(ActorDied):
        await ref.ask(Do(reply_to_another))

    (crash,) = kit.records(ref, "actor_crashed")
    assert crash.error is not None
    assert crash.error.type == "ActorError"
    assert "use defer" in crash.error.message


async def test_a_callers_timeout_never_harms_the_callee(kit: Kit) -> None:
    """Promise 7 (U): the turn goes on, its late reply is dropped, the next ask is answered."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal), restart=Restart.TRANSIENT)

    with pytest.raises(AskTimeout, match="no reply in 1 s") as caught:
        await ref.ask(Nap(2.0), timeout=1)

    assert isinstance(caught.value, trio.TooSlowError)
    assert trio.current_time() == kit.started_at + 1
    assert await ref.ask(Ping()) == 1
    assert trio.current_time() == kit.started_at + 2
    assert kit.events(ref) == ["actor_started"]
    (timed_out,) = kit.records(ref, "ask_timeout")
    assert timed_out.detail == {"message_type": "Nap", "waited_ms": 1000}


async def test_a_callers_cancellation_never_harms_the_callee(kit: Kit) -> None:
    """Promise 7 (U): a caller who goes away leaves the callee as it was."""
    ref = kit.spawn(Puppet, restart=Restart.TRANSIENT)

    with trio.move_on_after(1):
        await ref.ask(Nap(2.0), timeout=math.inf)

    assert await ref.ask(Ping()) == 1
    assert kit.events(ref) == ["actor_started"]


async def test_an_abandoned_request_is_not_begun(kit: Kit) -> None:
    """Promise 7 (U): a request whose asker has left is skipped, and that is recorded."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal))

    async def write(puppet: Puppet) -> None:
        puppet.journal.append("too late")

    ref.tell(Nap(5.0))
    with pytest.raises(AskTimeout):
        await ref.ask(Do(write), timeout=1)
    assert await ref.ask(Ping(), timeout=math.inf) == 1

    assert journal == []
    (letter,) = kit.records(ref, "dead_letter")
    assert letter.detail == {"message_type": "Do", "sender": None, "cause": "abandoned"}


async def test_a_cancelled_caller_sends_nothing(kit: Kit) -> None:
    """An ask inside a cancelled scope does not reach the callee at all."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal))

    async def write(puppet: Puppet) -> None:
        puppet.journal.append("written")

    with trio.CancelScope() as scope:
        scope.cancel()
        await ref.ask(Do(write))

    assert await ref.ask(Ping()) == 1
    assert journal == []


async def test_an_ask_to_nobody_fails_at_once(kit: Kit) -> None:
    """Promise 1 (U): a path where nobody lives answers at once, whatever the timeout."""
    with pytest.raises(ActorDied, match="/nobody: no such actor"):
        await kit.system.ref("/nobody").ask(Ping(), timeout=math.inf)


async def test_an_ask_to_a_supervisor_fails_at_once(kit: Kit) -> None:
    """Supervisors take no messages; what is told to one is a dead letter."""
    with pytest.raises(ActorDied):
        await kit.system.ref("/").ask(Ping(), timeout=math.inf)

    kit.system.ref("/").tell(Note())

    (letter,) = kit.system.records(event="dead_letter")
    assert letter.actor == "/"


async def test_a_full_mailbox_refuses_an_ask_at_once(kit: Kit) -> None:
    """Promise 1 (U): `REJECT` is an answer, not a wait."""
    ref = kit.spawn(Puppet, mailbox=Mailbox(1))
    ref.tell(Nap(60.0))
    await kit.settle()
    ref.tell(Note())

    with pytest.raises(MailboxFull) as caught:
        await ref.ask(Ping(), timeout=math.inf)

    assert caught.value.capacity == 1
    assert trio.current_time() == kit.started_at


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
async def test_a_dropped_ask_fails_at_once(kit: Kit, overflow: Overflow) -> None:
    """Promise 1 (U): a request that had to go from a full mailbox fails with `MailboxFull`."""
    ref = kit.spawn(Puppet, mailbox=Mailbox(1, overflow))
    ref.tell(Nap(60.0))
    await kit.settle()

    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(MailboxFull):
                await ref.ask(Ping(), timeout=math.inf)
            assert trio.current_time() == kit.started_at

        if overflow is Overflow.DROP_NEWEST:
            ref.tell(Note())
        nursery.start_soon(ask)
        await kit.settle()
        ref.tell(Note())


async def test_delayed_replies_arrive_later(kit: Kit) -> None:
    """A planted delay holds a reply back for exactly so long."""
    ref = kit.spawn(Puppet)
    kit.delay_replies(ref, 3.0)

    assert await ref.ask(Ping()) == 1

    assert trio.current_time() == kit.started_at + 3.0


def test_an_error_is_raised_as_the_askers_own_object() -> None:
    """Every waiter gets its own exception: tracebacks of two askers never mix."""

    async def main() -> None:
        errors: list[ActorDied] = []

        async def ask(ref: PuppetRef) -> None:
            with pytest.raises(ActorDied) as caught:
                await ref.ask(Ping(), timeout=math.inf)
            errors.append(caught.value)

        async with open_kit() as kit, trio.open_nursery() as nursery:
            ref = kit.spawn(Puppet)
            ref.tell(Explode())
            for _ in range(3):
                nursery.start_soon(ask, ref)

        assert len({id(error) for error in errors}) == 3

    run(main)

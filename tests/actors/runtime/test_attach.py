"""A mailbox for a task that exists already, which is also what a test's probe is."""

import math

import pytest
import trio

from pipelit.actors.runtime import (
    ActorDied,
    ActorError,
    ActorExists,
    FamilySpec,
    InboxClosed,
    Mailbox,
    MailboxFull,
    SupervisorSpec,
    get_log_context,
)
from pipelit.actors.runtime.testing import Kit
from tests.actors.runtime.puppet import BoomError, Note, Ping, Puppet, PuppetMessage

pytestmark = pytest.mark.timeout(60)


async def test_an_attached_task_is_told_like_an_actor(kit: Kit) -> None:
    """It has a path, a kind, correlation ids and a bounded mailbox."""
    async with kit.system.attach(
        "/", "socket", kind="socket", protocol=Note, mailbox=Mailbox(3), detail={"user_id": 7}
    ) as inbox:
        for number in range(3):
            inbox.ref.tell(Note(str(number)))
        with pytest.raises(MailboxFull):
            inbox.ref.tell(Note())

        assert await inbox.wait() == Note("0")
        assert await inbox.wait_batch(10) == [Note("1"), Note("2")]
        info = kit.system.snapshot("/socket")
        assert info is not None
        assert (info.kind, info.detail, info.messages_handled) == ("socket", {"user_id": 7}, 3)

    assert kit.system.snapshot("/socket") is None
    started, stopped = (
        r
        for r in kit.system.records(kind="socket")
        if r.event != "mailbox_high" and r.event != "mailbox_normal"
    )
    assert (started.event, stopped.event, stopped.reason) == (
        "actor_started",
        "actor_stopped",
        "normal",
    )


async def test_an_attached_task_is_known_to_logs_and_dead_letters(kit: Kit) -> None:
    """Inside the block the task is that actor; outside it is nobody again."""
    async with kit.system.attach("/", "socket", kind="socket", detail={"user_id": 7}):
        assert get_log_context() == {"actor": "/socket", "user_id": 7}
        kit.system.ref("/nobody").tell(Note())
    assert get_log_context() == {}

    (letter,) = kit.system.records(event="dead_letter")
    assert letter.detail["sender"] == "/socket"


async def test_a_batch_is_no_longer_than_asked_for(kit: Kit) -> None:
    """`wait_batch(max)` takes what is there, up to *max*, and waits only for the first."""
    async with kit.probe() as probe:
        for number in range(5):
            probe.ref.tell(Note(str(number)))

        assert len(await probe.inbox.wait_batch(2)) == 2
        assert len(await probe.inbox.wait_batch(10)) == 3
        with trio.move_on_after(1) as scope:
            await probe.inbox.wait_batch(10)
        assert scope.cancelled_caught


async def test_cancelling_the_ref_cancels_the_block_only(kit: Kit) -> None:
    """The task goes on after its block; the exit says why."""
    async with kit.system.attach("/", "socket", kind="socket") as inbox:
        ref = inbox.ref
        ref.cancel("user left")
        await trio.sleep_forever()

    ended = await ref.wait_stopped()
    assert (ended.reason, ended.why) == ("cancelled", "user left")


async def test_cancelling_its_supervisor_cancels_the_block_too(kit: Kit) -> None:
    """An attached task is a child like others, wherever it runs."""
    kit.system.start_child("/", SupervisorSpec(id="sockets"))
    sockets = kit.system.ref("/sockets")
    await kit.wait_for("actor_started", sockets)

    async with kit.system.attach("/sockets", "17", kind="socket") as inbox:
        ref = inbox.ref
        sockets.cancel("maintenance")
        await trio.sleep_forever()

    ended = await ref.wait_stopped()
    assert (ended.reason, ended.why) == ("cancelled", "maintenance")


async def test_stopping_the_ref_closes_the_inbox_and_then_the_block(kit: Kit) -> None:
    """`wait` raises `InboxClosed`, which is a clean end; a deaf block is cancelled in 5 s."""
    async with kit.system.attach("/", "polite", kind="socket") as inbox:
        polite = inbox.ref
        polite.stop("shutdown")
        await inbox.wait()
        pytest.fail("the inbox is closed")
    assert trio.current_time() == kit.started_at

    async with kit.system.attach("/", "deaf", kind="socket") as inbox:
        deaf = inbox.ref
        deaf.stop("shutdown")
        await trio.sleep_forever()
    assert trio.current_time() == kit.started_at + 5

    assert (await polite.wait_stopped()).reason == "shutdown"
    assert (await deaf.wait_stopped()).reason == "killed"


async def test_a_closed_inbox_is_a_clean_end_from_within_a_nursery_too(kit: Kit) -> None:
    """A reader and a writer in one block: the group around `InboxClosed` is no error."""
    async with kit.system.attach("/", "socket", kind="socket") as inbox:
        ref = inbox.ref
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.wait)
            nursery.start_soon(trio.sleep_forever)
            await kit.settle()
            ref.stop()

    assert (await ref.wait_stopped()).reason == "shutdown"


async def test_an_error_of_the_block_is_recorded_and_goes_on(kit: Kit) -> None:
    """The task is its owner's: the error is a crash record and reaches the owner as it is."""
    with pytest.raises(BoomError):
        async with kit.system.attach("/", "socket", kind="socket"):
            raise BoomError("frame")

    (crash,) = kit.system.records(event="actor_crashed")
    assert crash.detail["next"] == "stop"


async def test_an_attached_task_can_answer(kit: Kit) -> None:
    """A request taken from the inbox is answered with `reply`, or fails with the block."""
    answers: list[object] = []

    async def ask() -> None:
        try:
            answers.append(await probe.ref.ask(Ping(), timeout=math.inf))
        except ActorDied as error:
            answers.append(type(error).__name__)

    async with trio.open_nursery() as nursery, kit.probe() as probe:
        for _ in range(2):
            nursery.start_soon(ask)
        request = await probe.expect(Ping)
        probe.inbox.reply(request, 7)
        probe.inbox.reply(Ping(), 8)
        with trio.move_on_after(1):
            await probe.ref.ask(Ping(), timeout=math.inf)
        await probe.expect(Ping)
        probe.ref.tell(Note())
        await probe.expect(Note)

    assert sorted(map(str, answers)) == ["7", "ActorDied"]
    (letter,) = kit.system.records(event="dead_letter")
    assert letter.detail["cause"] == "abandoned"


async def test_a_place_is_given_only_under_a_live_supervisor(kit: Kit) -> None:
    """Not under nobody, an actor or a family; not twice; not with a slash in the id."""
    spec: FamilySpec[PuppetMessage] = FamilySpec(
        id="family", kind="test", start=lambda _key: Puppet()
    )
    kit.system.start_child("/", spec)
    kit.spawn(Puppet, name="actor")

    for parent, name, error in [
        ("/nobody", "x", ActorDied),
        ("/actor", "x", ActorDied),
        ("/family", "x", ActorError),
        ("/", "actor", ActorExists),
    ]:
        with pytest.raises(error):
            async with kit.system.attach(parent, name, kind="socket"):
                pytest.fail("no place")
    with pytest.raises(ValueError, match="slash"):
        kit.system.attach("/", "a/b", kind="socket")


async def test_a_probe_says_what_it_got_instead(kit: Kit) -> None:
    """`expect` fails with the message that came."""
    async with kit.probe("probe") as probe:
        probe.ref.tell(Note("other"))

        with pytest.raises(AssertionError, match="expected a Ping, got Note"):
            await probe.expect(Ping)


async def test_the_inbox_of_a_stopping_task_still_empties(kit: Kit) -> None:
    """Closing fails what waits in the queue; a reader that comes late hears `InboxClosed`."""
    async with kit.system.attach("/", "socket", kind="socket") as inbox:
        inbox.ref.tell(Note())
        inbox.ref.stop()
        with pytest.raises(InboxClosed, match="/socket: asked to stop"):
            await inbox.wait()

    assert kit.system.dead_letters == 1

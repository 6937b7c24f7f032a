"""Promise 8: the mailbox is bounded, its policy is followed, every drop is a record."""

from collections import deque

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import Mailbox, MailboxFull, Overflow
from pipelit.actors.runtime.mailbox import Full, MailQueue
from pipelit.actors.runtime.testing import Kit, open_kit
from tests.actors.runtime.puppet import Do, Nap, Note, Ping, Puppet, examples, puppet, run

pytestmark = pytest.mark.timeout(60)

_STEPS = st.lists(st.sampled_from(["put", "put", "system", "take", "take all"]), max_size=60)


@given(_STEPS, st.integers(1, 6), st.sampled_from(Overflow))
def test_a_queue_follows_its_policy(steps: list[str], capacity: int, overflow: Overflow) -> None:
    """Promise 8 (P): depth never exceeds the capacity; what goes is what the policy says."""
    waters: list[bool] = []
    queue: MailQueue[int] = MailQueue(Mailbox(capacity, overflow), waters.append)
    model: deque[int] = deque()
    system: deque[int] = deque()

    for number, step in enumerate(steps):
        match step:
            case "put" if len(model) < capacity:
                assert queue.put(number) is None
                model.append(number)
            case "put" if overflow is Overflow.REJECT:
                with pytest.raises(Full):
                    queue.put(number)
            case "put" if overflow is Overflow.DROP_NEWEST:
                assert queue.put(number) == number
            case "put":
                assert queue.put(number) == model.popleft()
                model.append(number)
            case "system":
                queue.put_system(number)
                system.append(number)
            case "take":
                expected = system or model
                assert queue.take() == (expected.popleft() if expected else None)
            case _:
                assert queue.take_all() == list(model)
                model.clear()
        assert queue.depth == len(model) <= capacity
        assert bool(queue) == bool(model or system)

    assert waters == [index % 2 == 0 for index in range(len(waters))]


@examples(50)
@given(
    st.lists(st.sampled_from(["tell", "tell", "work"]), max_size=60),
    st.integers(1, 5),
    st.sampled_from(Overflow),
    st.random_module(),
)
def test_every_message_is_handled_dropped_on_record_or_refused(
    script: list[str], capacity: int, overflow: Overflow, interleaving: object
) -> None:
    """Promise 8 (P): sent = handled + recorded drops + refusals; nothing disappears."""
    journal: list[str] = []

    async def main() -> None:
        sent = refused = 0
        async with open_kit() as kit:
            ref = kit.spawn(puppet(journal), mailbox=Mailbox(capacity, overflow))
            ref.tell(Nap(0.5))
            await kit.settle()
            for step in script:
                if step == "work":
                    await trio.sleep(0.2)
                    continue
                sent += 1
                try:
                    ref.tell(Note(str(sent)))
                except MailboxFull:
                    refused += 1
                info = kit.system.snapshot(ref.path)
                assert info is not None
                assert info.mailbox_depth <= capacity == info.mailbox_capacity
            await trio.sleep(1)

        letters = kit.records(ref, "dead_letter")
        assert all(letter.detail["cause"] == "overflow" for letter in letters)
        assert sent == len(journal) + kit.system.dead_letters + refused
        assert len(letters) == min(kit.system.dead_letters, 10)
        assert journal == sorted(journal, key=int)

    run(main)


async def test_a_full_mailbox_refuses_without_waiting(kit: Kit) -> None:
    """Promise 8 (U): `tell` never blocks: `REJECT` raises at the sender."""
    ref = kit.spawn(Puppet, mailbox=Mailbox(2))
    ref.tell(Nap(60))
    await kit.settle()
    ref.tell(Note())
    ref.tell(Note())

    with pytest.raises(MailboxFull, match=r"mailbox full \(2\)"):
        ref.tell(Note())


async def test_high_and_normal_water_are_recorded_once_each(kit: Kit) -> None:
    """80 % is high water, under 50 % is normal again; nothing is said in between."""
    ref = kit.spawn(Puppet, mailbox=Mailbox(10))
    ref.tell(Nap(60))
    await kit.settle()

    for _ in range(10):
        ref.tell(Note())
    await trio.sleep(61)

    (high,) = kit.records(ref, "mailbox_high")
    (normal,) = kit.records(ref, "mailbox_normal")
    assert high.detail == {"depth": 8, "capacity": 10}
    assert normal.detail == {"depth": 4, "capacity": 10}


async def test_messages_of_one_sender_keep_their_order(kit: Kit) -> None:
    """First in, first out per sender inside a lane."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal))

    for number in range(50):
        ref.tell(Note(str(number)))
    await ref.ask(Ping())

    assert journal == [str(number) for number in range(50)]


def test_a_mailbox_without_room_is_refused_where_it_is_written_down() -> None:
    """A capacity below 1 is an error at construction."""
    with pytest.raises(ValueError, match="at least 1"):
        Mailbox(0)


async def test_dead_letters_are_throttled_and_counted(kit: Kit) -> None:
    """Ten per path and minute one by one; the next minute's first says how many were kept back."""
    nobody = kit.system.ref("/nobody")

    for _ in range(25):
        nobody.tell(Note())
    await trio.sleep(60)
    nobody.tell(Note())
    nobody.tell(Note())

    letters = kit.records(nobody, "dead_letter")
    assert len(letters) == 12
    assert letters[0].detail == {"message_type": "Note", "sender": None, "cause": "gone"}
    assert letters[10].detail["suppressed"] == 15
    assert "suppressed" not in letters[11].detail
    assert kit.system.dead_letters == 27


async def test_the_throttle_forgets_the_path_heard_of_least_recently(kit: Kit) -> None:
    """However many paths get dead letters, the memory of them is bounded."""
    kit.system.ref("/first").tell(Note())

    for number in range(1_100):
        kit.system.ref(f"/nobody{number}").tell(Note())
    for _ in range(11):
        kit.system.ref("/first").tell(Note())

    assert len(kit.records(kit.system.ref("/first"), "dead_letter")) == 11


async def test_a_dead_letter_names_its_sender(kit: Kit) -> None:
    """What an actor, or its own task, sends to nobody is traced back to it."""
    ref = kit.spawn(Puppet, name="sender")

    async def tell_nobody(puppet: Puppet) -> None:
        puppet.ctx.system.ref("/nobody").tell(Note())
        puppet.ctx.start_soon(tell_from_own_task)

    async def tell_from_own_task() -> None:
        kit.system.ref("/nobody").tell(Note())

    await ref.ask(Do(tell_nobody))
    await kit.settle()

    letters = kit.system.records(event="dead_letter")
    assert [letter.detail["sender"] for letter in letters] == ["/sender", "/sender"]

"""Promise 16: gapless, legal, complete records; and the stream's readers, ring and sinks."""

import logging
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import (
    ActorDied,
    ChildSpec,
    Record,
    Restart,
    RestartLimit,
    SupervisorSpec,
    open_system,
)
from pipelit.actors.runtime.automaton import find_fault
from pipelit.actors.runtime.crash import describe_error
from pipelit.actors.runtime.testing import WALL_START, Kit, open_kit
from tests.actors.runtime.puppet import Explode, Note, Ping, Puppet, examples, run

pytestmark = pytest.mark.timeout(60)


def record(seq: int, event: str, incarnation: int = 1, **detail: str) -> Record:
    error = None
    if event == "actor_crashed":
        error = describe_error(ValueError("x"))
    return Record(
        seq=seq,
        timestamp=0.0,
        event=event,
        actor="/a",
        kind="test",
        parent="/",
        incarnation=incarnation,
        error=error,
        detail=detail,
    )


STARTED = partial(record, event="actor_started")
STOPPED = partial(record, event="actor_stopped")
RESTARTED = partial(record, event="actor_restarted")
GAVE_UP = partial(record, event="actor_gave_up")
CRASHED = partial(record, event="actor_crashed")


@pytest.mark.parametrize(
    ("lives", "stream"),
    [
        (1, [STARTED(1), STOPPED(2)]),
        (
            1,
            [
                STARTED(1),
                CRASHED(2, next="restart"),
                RESTARTED(3, incarnation=2),
                STOPPED(4, incarnation=2),
            ],
        ),
        (1, [STARTED(1), CRASHED(2, next="stop")]),
        (2, [STARTED(1), CRASHED(2, next="stop"), GAVE_UP(3), STARTED(4), STOPPED(5)]),
        (2, [CRASHED(1, next="stop"), STARTED(2), STOPPED(3)]),
        (1, [STARTED(1), CRASHED(2, next="escalate"), GAVE_UP(3)]),
        (1, [CRASHED(1, next="restart"), STOPPED(2)]),
        (2, [STOPPED(1, incarnation=0), STOPPED(2)]),
        (1, [record(1, "dead_letter", 0), STARTED(2), STOPPED(3), record(4, "dead_letter", 0)]),
        (None, [STARTED(1)]),
    ],
)
def test_the_automaton_accepts_what_is_legal(lives: int | None, stream: list[Record]) -> None:
    """Promise 16 (U): every way an actor may live and end."""
    assert find_fault(stream, lives=lives) is None


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        ([STARTED(2)], "seq 2 where 1"),
        ([STARTED(1), STOPPED(3)], "seq 3 where 2"),
        ([STARTED(1)], "no last record of /a"),
        ([STARTED(1), STARTED(2)], "actor_started of /a, which is up"),
        ([STARTED(1), STOPPED(2), STOPPED(3)], "2 last records of 1 lives"),
        ([STARTED(1), CRASHED(2, next="escalate"), STOPPED(3)], "which is giving up"),
        ([STARTED(1), CRASHED(2, next="stop"), RESTARTED(3, incarnation=2)], "crashed for good"),
        ([STARTED(1), CRASHED(2, next="restart"), RESTARTED(3, incarnation=3)], "incarnation 3"),
        ([RESTARTED(1)], "actor_restarted of /a, which is gone"),
        ([STARTED(1, incarnation=2), STOPPED(2)], "incarnation 2"),
    ],
)
def test_the_automaton_finds_what_is_not(stream: list[Record], fault: str) -> None:
    """Promise 16 (U): gaps, missing or doubled last records, impossible sequences."""
    found = find_fault(stream, lives=1)

    assert found is not None
    assert fault in found


def test_a_crash_without_an_error_is_a_fault() -> None:
    """Promise 16 (U): the automaton wants the traceback of every crash."""
    bare = Record(
        seq=1,
        timestamp=0.0,
        event="actor_crashed",
        actor="/a",
        kind="test",
        parent="/",
        incarnation=1,
        detail={"next": "stop"},
    )

    assert find_fault([bare], lives=1) == "a crash of /a without an error"


@examples(40)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["spawn", "crash", "stop", "cancel", "tell", "pause"]),
        ),
        max_size=40,
    ),
    st.random_module(),
)
def test_every_stream_is_gapless_legal_and_complete(
    script: list[tuple[int, str]], interleaving: object
) -> None:
    """Promise 16 (P): whatever happens, the automaton of the kit accepts the records."""

    async def main() -> None:
        async with open_kit() as kit:
            kit.system.start_child("/", SupervisorSpec(id="group"))
            for number, what in script:
                ref = kit.system.ref(f"/group/{number}")
                match what:
                    case "spawn" if not ref.is_alive():
                        restart = list(Restart)[number % 3]
                        kit.spawn(Puppet, name=str(number), parent="/group", restart=restart)
                    case "crash":
                        ref.tell(Explode())
                    case "stop":
                        ref.stop()
                    case "cancel":
                        ref.cancel("test")
                    case "pause":
                        await trio.sleep(0.3)
                    case _:
                        ref.tell(Note())

    run(main)


async def test_a_crash_is_recorded_before_anybody_hears_of_it(kit: Kit) -> None:
    """Promise 16 (U): record first, effect second: a give-up comes before the escalation."""
    spec = SupervisorSpec(
        id="group",
        limit=RestartLimit(0),
        children=(ChildSpec(id="a", kind="test", start=Puppet),),
    )
    kit.system.start_child("/", spec)
    await kit.wait_for("actor_started", kit.system.ref("/group"))
    kit.system.ref("/group/a").tell(Explode())
    kit.system.ref("/group/a").tell(Note())
    await kit.wait_for("actor_crashed", kit.system.ref("/group"))

    events = [r.event for r in kit.system.records(actor="/group")]
    assert events[2:6] == ["actor_crashed", "actor_gave_up", "dead_letter", "supervisor_escalated"]


async def test_records_can_be_chosen(kit: Kit) -> None:
    """By sequence number, event, kind, path prefix and count; oldest first."""
    kit.spawn(Puppet, name="a", kind="one")
    kit.spawn(Puppet, name="b", kind="two")
    await kit.settle()
    everything = kit.system.records()

    assert [r.seq for r in everything] == [1, 2, 3]
    assert kit.system.last_seq == 3
    assert kit.system.records(2) == everything[2:]
    assert [r.kind for r in kit.system.records(kind="one")] == ["one"]
    assert {r.actor for r in kit.system.records(actor="/b")} == {"/b"}
    assert kit.system.records(event="actor_crashed") == ()
    assert kit.system.records(limit=1) == everything[:1]
    assert everything[0].timestamp == WALL_START + kit.started_at


async def test_the_ring_keeps_the_newest() -> None:
    """`records` begins at the oldest that is kept."""
    async with open_system(SupervisorSpec(id="root"), perf=None, ring=3) as system:
        for _ in range(5):
            system.ref("/nobody").tell(Note())

        assert [r.seq for r in system.records()] == [4, 5, 6]


async def test_a_sink_that_fails_is_removed_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every sink gets every record; a broken one costs nobody else anything."""
    got: list[int] = []

    def broken(_record: Record) -> None:
        raise ValueError("disk full")

    with caplog.at_level(logging.ERROR):
        async with open_system(
            SupervisorSpec(id="root"), perf=None, sinks=[broken, lambda r: got.append(r.seq)]
        ):
            pass

    assert got == [1, 2]
    assert len(caplog.records) == 1
    assert "disk full" in caplog.text


async def test_a_subscription_replays_and_follows(kit: Kit) -> None:
    """`after` replays what is kept; then everything comes as it happens."""
    kit.spawn(Puppet)
    await kit.settle()

    async with kit.system.subscribe(after=1) as records, kit.system.subscribe() as live:
        kit.system.ref("/nobody").tell(Note())

        assert [(await anext(records)).seq for _ in range(2)] == [2, 3]
        assert (await anext(live)).seq == 3
        with trio.move_on_after(1) as scope:
            await anext(live)
        assert scope.cancelled_caught


async def test_a_slow_reader_loses_its_oldest_and_is_told(kit: Kit) -> None:
    """A subscription is bounded; `missed` counts what had to go."""
    async with kit.system.subscribe(buffer=3) as records:
        for _ in range(5):
            kit.system.ref("/nobody").tell(Note())

        assert records.missed == 2
        assert [(await anext(records)).seq for _ in range(3)] == [4, 5, 6]


async def test_a_subscription_ends_with_the_system_after_its_last_record() -> None:
    """The stream outlives every actor: the root's last record is still read."""
    seen: list[str] = []

    async def read(kit: Kit, task_status: trio.TaskStatus[None]) -> None:
        async with kit.system.subscribe() as records:
            task_status.started()
            seen.extend([f"{item.event} {item.actor}" async for item in records])

    async with trio.open_nursery() as nursery, open_kit() as kit:
        await nursery.start(read, kit)
        await kit.settle()

    assert seen == ["actor_stopped /"]


async def test_an_unexpected_end_of_the_stream_is_not_a_hang() -> None:
    """`wait_for` something that never comes ends with the system."""
    async with open_kit() as kit:
        await kit.system.stop()
        with pytest.raises(ActorDied):
            await kit.wait_for("actor_crashed")


async def test_pings_are_counted_in_the_last_record(kit: Kit) -> None:
    """`actor_stopped` says how long it lived and how much it handled."""
    ref = kit.spawn(Puppet)
    for _ in range(3):
        await ref.ask(Ping())
    await trio.sleep(2)

    ref.stop()
    await ref.wait_stopped()

    (stopped,) = kit.records(ref, "actor_stopped")
    assert stopped.detail == {"uptime_ms": 2000, "messages_handled": 3, "why": "stopped"}

"""Each supervision record has the fields of its row in the contract, and no other.

Contract: operations.md §1.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest
import trio
import trio.testing
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors.leases import RENEW_EVERY, Lease
from pipelit.actors.runtime import (
    AskTimeout,
    ChildSpec,
    Mailbox,
    Restart,
    RestartLimit,
    SupervisorSpec,
    open_system,
)
from pipelit.actors.runtime.records import Record
from pipelit.actors.runtime.testing import Kit, open_kit
from pipelit.nodes.base import Component
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.servers import register_server, release_server
from tests.actors.runtime.puppet import Do, Explode, Nap, Note, Puppet
from tests.kit.flows import Gate, leave_behind
from tests.kit.jobs import open_jobs
from tests.kit.store import hold_of, running_store
from tests.kit.tree import add_people, open_tree

OPERATIONS = Path(__file__).parents[2] / "docs" / "reference" / "operations.md"
SECTION = OPERATIONS.read_text().partition("## 1. ")[2].partition("\n## ")[0]


def read_table(head: str) -> dict[str, tuple[str, ...]]:
    """Return the other cells of each row by the names in the first one."""
    _, _, rest = SECTION.partition(f"\n| {head} |")
    rows = [row.strip("| ").split(" | ") for row in rest.partition("\n\n")[0].splitlines()[2:]]
    return {name: tuple(cells) for first, *cells in rows for name in names(first)}


def names(text: str) -> list[str]:
    return re.findall(r"`(\w+)`", text)


FIELDS = read_table("Field")
EVENTS = {
    # What comes after a colon or in brackets explains the field before it.
    event: re.sub(r":[^;]*|\([^)]*\)", "", cells[-1]).partition("maybe")
    for event, cells in read_table("`event` | When").items()
}
IDS = set(names(FIELDS["detail"][-1]))
REASONS = set(names(FIELDS["reason"][-1]))


class Stage(NamedTuple):
    """What a provocation may use."""

    url: URL
    clock: MockClock
    components: dict[str, Component]


Provoke: TypeAlias = Callable[[Stage], Awaitable[Sequence[Record]]]


def in_kit(act: Callable[[Kit], Awaitable[None]]) -> Provoke:
    async def provoke(_: Stage) -> Sequence[Record]:
        async with open_kit() as kit:
            await act(kit)
        return kit.system.records()

    return provoke


async def live(kit: Kit) -> None:
    """Start, and stop in order."""
    ref = kit.spawn(Puppet)
    ref.stop()
    await ref.wait_stopped()


async def hold_on(_: Puppet) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(20)


async def stay(kit: Kit) -> None:
    """Be cancelled, and go on."""
    ref = kit.spawn(Puppet)
    ref.tell(Do(hold_on))
    await kit.settle()
    ref.cancel("test")
    await ref.wait_stopped()


async def write_to_nobody(kit: Kit) -> None:
    """So often that some letters are left out, and owned up to a minute later."""
    for _ in range(12):
        kit.system.ref("/nobody").tell(Note())
    await trio.sleep(61)
    kit.system.ref("/nobody").tell(Note())


async def pile_up(kit: Kit) -> None:
    """Fill a mailbox, and let it be emptied."""
    ref = kit.spawn(Puppet, mailbox=Mailbox(10))
    ref.tell(Nap(60))
    await kit.settle()
    for _ in range(10):
        ref.tell(Note())
    await trio.sleep(61)


async def lose_patience(kit: Kit) -> None:
    """Ask somebody who is busy."""
    with pytest.raises(AskTimeout):
        await kit.spawn(Puppet).ask(Nap(60), timeout=1)


async def escalate(_: Stage) -> Sequence[Record]:
    """Crash twice below a supervisor that allows it once."""
    child = ChildSpec(id="child", kind="test", start=Puppet, restart=Restart.PERMANENT)
    group = SupervisorSpec(id="group", children=(child,), limit=RestartLimit(1, within=60))
    async with open_kit([group]) as kit:
        ref = kit.system.ref("/group/child")
        ref.tell(Explode())
        await kit.wait_for("actor_restarted", ref)
        ref.tell(Explode())
        await kit.wait_for("supervisor_escalated")
    return kit.system.records()


async def compute(_: Stage) -> Sequence[Record]:
    """Hold the loop, by the clock of a processor that a turn sets forward."""
    seconds = [0.0]

    async def work(_: Puppet) -> None:
        seconds[0] += 0.15

    root = SupervisorSpec(id="root", children=(ChildSpec(id="actor", kind="test", start=Puppet),))
    async with open_system(root, perf=lambda: seconds[0]) as system:
        await system.ref("/actor").ask(Do(work))
        await trio.testing.wait_all_tasks_blocked()
        return system.records()


async def come_back(stage: Stage) -> Sequence[Record]:
    """Start a server on a database where a job and its run were left behind."""
    stage.components["a"] = gate = Gate()
    async with open_jobs(*stage, grace=0.1) as jobs:
        await jobs.add(interval_seconds=600)
        await gate.arrived.wait()
    leave_behind(stage.url)
    gate.open.set()
    async with open_jobs(*stage, epoch=2) as jobs:
        await jobs.tree.settle()
        found = jobs.tree.system.records(event="recovered")
    assert {record.kind for record in found} == {"manager", "schedule"}
    return found


async def write_for_another(stage: Stage) -> Sequence[Record]:
    """Go on with an execution that another server has taken over."""
    stage.components["a"] = gate = Gate()
    async with open_tree(*stage) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")
        execution_id = await tree.start()
        await gate.arrived.wait()
        await tree.change(execution_id, owner="other", epoch=9)
        gate.open.set()
        await tree.gone(execution_id)
        return tree.system.records()


async def come_too_late(stage: Stage) -> Sequence[Record]:
    """Renew a lease that is over."""
    async with running_store(stage.url, hold=hold_of(stage.clock)) as store, open_kit() as kit:
        epoch = await store.write(lambda conn: register_server(conn, "server"))
        await store.write(lambda conn: release_server(conn, "server", epoch))
        kit.spawn(lambda: Lease(store, Owner("server", epoch), shared=True))
        await trio.sleep(RENEW_EVERY + 1)
        return kit.system.records()


PROVOCATIONS: Mapping[str, Provoke] = {
    "actor_started": in_kit(live),
    "actor_stopped": in_kit(live),
    "actor_crashed": escalate,
    "actor_restarted": escalate,
    "actor_gave_up": escalate,
    "actor_stuck": in_kit(stay),
    "dead_letter": in_kit(write_to_nobody),
    "mailbox_high": in_kit(pile_up),
    "mailbox_normal": in_kit(pile_up),
    "ask_timeout": in_kit(lose_patience),
    "supervisor_escalated": escalate,
    "slow_handler": compute,
    "recovered": come_back,
    "fenced": write_for_another,
    "lease_lost": come_too_late,
}


def test_every_event_of_the_table_is_provoked() -> None:
    """Nothing else, either."""
    assert PROVOCATIONS.keys() == EVENTS.keys()


def test_a_record_has_the_fields_of_the_contract() -> None:
    """In their order."""
    assert list(Record.__struct_fields__) == list(FIELDS)


@pytest.mark.parametrize("event", EVENTS)
async def test_each_record_has_exactly_the_fields_of_its_row(
    event: str, store_url: URL, clock: MockClock, components: dict[str, Component]
) -> None:
    """But for those that it may have, and the ids of what it is about."""
    always, _, sometimes = EVENTS[event]
    records = await PROVOCATIONS[event](Stage(store_url, clock, components))
    found = [record for record in records if record.event == event]

    own = [record.detail.keys() - IDS for record in found]
    assert own
    assert all(fields - set(names(sometimes)) == set(names(always)) for fields in own), own
    assert set(names(sometimes)) <= {field for fields in own for field in fields}
    assert {record.reason for record in found} <= REASONS | {None}

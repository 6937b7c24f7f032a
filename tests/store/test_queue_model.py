"""The writer against a model: any interleaving of writes, cancels, crashes and full disks."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import outcome
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelit.store import StorageUnavailable, StoreBusy, StoreError
from pipelit.store.commit import AnyUnit, Result
from pipelit.store.writer import Writer
from tests.kit.store import hold_of

Step = Literal[
    "write",
    "write patiently",
    "write and fail",
    "cancel",
    "fill",
    "heal",
    "crash",
    "restart",
    "wait",
]
_STEPS = st.lists(st.sampled_from(get_args(Step)), max_size=40)
_CAPACITY, _BATCH = 8, 3


class Ledger:
    """A committer whose database is a list, on a disk that may be full; it may crash."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.full = False
        self.crash = False

    def commit(self, units: Sequence[AnyUnit]) -> list[Result]:
        if self.crash:
            self.crash = False
            raise RuntimeError("bug")
        if self.full:
            raise StorageUnavailable
        return [outcome.capture(unit, self.committed) for unit in units]  # type: ignore[call-overload]


class World:
    """Callers around one writer. `fates`: how each ended, by number; absent while it waits."""

    def __init__(self, writer: Writer, ledger: Ledger) -> None:
        self.writer = writer
        self.ledger = ledger
        self.fates: dict[int, str] = {}
        self.scopes: dict[int, trio.CancelScope] = {}

    async def call(self, number: int, *, patient: bool, fails: bool) -> None:
        def unit(committed: list[int]) -> int:
            if fails:
                raise KeyError(number)
            committed.append(number)
            return number

        with self.scopes.setdefault(number, trio.CancelScope()):
            try:
                answer = await self.writer.write(unit, patient=patient)  # type: ignore[arg-type]
            except KeyError as error:
                self.fates[number] = "failed" if fails and error.args == (number,) else "mixed up"
            except StorageUnavailable as error:
                refusable = isinstance(error, StoreBusy) or not patient
                self.fates[number] = "refused" if refusable else "impatient"
            except StoreError:
                self.fates[number] = "refused"
            else:
                self.fates[number] = "committed" if answer == number and not fails else "mixed up"
        self.fates.setdefault(number, "cancelled")
        del self.scopes[number]

    async def run(self) -> None:
        while True:
            try:
                await self.writer.run()
            except RuntimeError:
                continue
            return


async def play(steps: list[Step], clock: trio.testing.MockClock) -> World:
    """Do *steps*, then heal everything and let the writer finish."""
    ledger = Ledger()
    world = World(
        Writer(ledger, hold=hold_of(clock), capacity=_CAPACITY, batch=_BATCH),  # type: ignore[arg-type]
        ledger,
    )
    with trio.fail_after(3600):
        async with trio.open_nursery() as callers:
            writer = trio.CancelScope()

            async def supervised(scope: trio.CancelScope) -> None:
                with scope:
                    await world.run()

            callers.start_soon(supervised, writer)
            for number, step in enumerate(steps):
                match step:
                    case "write" | "write patiently" | "write and fail":
                        patient, fails = step == "write patiently", step == "write and fail"
                        callers.start_soon(
                            partial(world.call, number, patient=patient, fails=fails)
                        )
                        await trio.lowlevel.checkpoint()
                    case "cancel" if world.scopes:
                        world.scopes[min(world.scopes)].cancel()
                    case "fill" | "heal":
                        ledger.full = step == "fill"
                    case "crash":
                        ledger.crash = True
                    case "restart":
                        writer.cancel()
                        await trio.testing.wait_all_tasks_blocked()
                        await trio.sleep(5)
                        writer = trio.CancelScope()
                        callers.start_soon(supervised, writer)
                    case "wait":
                        await trio.sleep(5)
            ledger.full = False
            world.writer.stop()
    return world


@settings(max_examples=150, deadline=None)
@given(_STEPS)
@example(["fill", "write patiently", "write", "wait", "write patiently", "heal"])
@example(["write", "crash", "write patiently", "restart", "write"])
def test_every_caller_is_answered_once_and_truthfully(steps: list[Step]) -> None:
    """Whatever happens, each caller ends, and its unit is committed exactly if it was told so.

    Units keep the order of their calls, nothing hangs, and only the impatient are refused for
    lack of space.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    world = trio.run(play, steps, clock, clock=clock)

    asked = [number for number, step in enumerate(steps) if step.startswith("write")]
    told = [number for number in asked if world.fates[number] == "committed"]
    assert sorted(world.fates) == asked
    assert world.ledger.committed == told
    assert not {"mixed up", "impatient"} & set(world.fates.values())
    assert world.writer.statistics().queue_depth == 0

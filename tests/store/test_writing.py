"""What a caller of `Store.write` may rely on, on both databases."""

from contextlib import closing

import pytest
import trio
import trio.testing
from sqlalchemy import URL, Connection
from sqlalchemy.exc import IntegrityError

from pipelit.store import Store, StoreBusy, StoreClosed, Unit
from tests.store.items import Refused, add, add_then_refuse, names


class Gate:
    """A unit that stays inside its transaction until the test lets it go."""

    def __init__(self, name: str) -> None:
        self.entered = trio.Event()
        self.opened = trio.Event()
        self._add = add(name)

    def __call__(self, conn: Connection) -> str:
        trio.from_thread.run_sync(self.entered.set)
        trio.from_thread.run(self.opened.wait)
        return self._add(conn)


async def test_a_unit_is_readable_when_its_write_returns(store: Store) -> None:
    """`write` returns what the unit returned, and the next read sees what it wrote."""
    returned = await store.write(add("a"))

    assert returned == "a"
    assert await store.read(names) == ["a"]


async def test_a_guilty_unit_fails_alone(idle_store: Store) -> None:
    """In one batch only the units that raise fail, each with its own error and without a trace."""
    raised: dict[str, Exception] = {}

    async def expect_failure(name: str, unit: Unit[object]) -> None:
        try:
            await idle_store.write(unit)
        except (Refused, IntegrityError) as error:
            raised[name] = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_store.write, add("first"))
        nursery.start_soon(expect_failure, "refused", add_then_refuse("refused"))
        nursery.start_soon(idle_store.write, add("second"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(expect_failure, "duplicate", add("first"))
        nursery.start_soon(idle_store.write, add("third"))
        await trio.testing.wait_all_tasks_blocked()
        idle_store.stop()
        await idle_store.run()

    assert isinstance(raised["refused"], Refused)
    assert isinstance(raised["duplicate"], IntegrityError)
    assert set(await idle_store.read(names)) == {"first", "second", "third"}
    assert idle_store.statistics().commits == 1
    assert idle_store.statistics().failed_units == 2


async def test_units_are_committed_in_the_order_of_their_calls(idle_store: Store) -> None:
    """Order holds within a batch, across batches, and around a unit that fails."""
    wanted = [f"n{number}" for number in range(600)]

    async with trio.open_nursery() as nursery:
        for name in wanted:
            nursery.start_soon(idle_store.write, add(name), "one-key")
            await trio.lowlevel.cancel_shielded_checkpoint()
        idle_store.stop()
        await idle_store.run()

    assert await idle_store.read(names) == wanted
    assert idle_store.statistics().batch_sizes == (256, 256, 88)


async def test_cancelling_a_waiting_caller_takes_its_unit_back(idle_store: Store) -> None:
    """A unit whose caller was cancelled before its batch began is never run."""
    with trio.move_on_after(0) as scope:
        await idle_store.write(add("never"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_store.run)
        await idle_store.write(add("other"))
        idle_store.stop()

    assert scope.cancelled_caught
    assert await idle_store.read(names) == ["other"]


async def test_a_queued_caller_cancelled_in_the_queue_leaves_it(idle_store: Store) -> None:
    """Cancelling a caller that waits behind a busy writer answers at once and writes nothing."""
    gate = Gate("slow")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_store.run)
        nursery.start_soon(idle_store.write, gate)
        await gate.entered.wait()
        scope = trio.CancelScope()

        async def waiting() -> None:
            with scope:
                await idle_store.write(add("never"))

        async with trio.open_nursery() as inner:
            inner.start_soon(waiting)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        gate.opened.set()
        idle_store.stop()

    assert scope.cancelled_caught
    assert await idle_store.read(names) == ["slow"]


async def test_cancelling_during_a_commit_waits_for_its_outcome(idle_store: Store) -> None:
    """A caller cancelled while its unit is being committed learns the outcome: it is committed."""
    gate = Gate("taken")
    answers: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_store.run)

        async def caller(scope: trio.CancelScope) -> None:
            with scope:
                answers.append(await idle_store.write(gate))

        scope = trio.CancelScope()
        nursery.start_soon(caller, scope)
        await gate.entered.wait()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
        idle_store.stop()

    assert answers == ["taken"]
    assert await idle_store.read(names) == ["taken"]


async def test_a_full_queue_refuses_at_once(items_url: URL) -> None:
    """Over the limit `write` raises `StoreBusy` and what was queued before stays."""
    with closing(Store(items_url, capacity=2)) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, add("a"))
            nursery.start_soon(store.write, add("b"))
            await trio.testing.wait_all_tasks_blocked()

            with pytest.raises(StoreBusy):
                await store.write(add("c"))

            store.stop()
            await store.run()
        assert sorted(await store.read(names)) == ["a", "b"]


async def test_a_cancelled_writer_answers_everyone_who_waits(idle_store: Store) -> None:
    """Cancelling `run` finishes the batch under way; who waits gets `StoreClosed`."""
    gate = Gate("under way")
    refused: list[str] = []

    async def expect_closed() -> None:
        with pytest.raises(StoreClosed):
            await idle_store.write(add("too late"))
        refused.append("too late")

    async with trio.open_nursery() as nursery:
        writer = trio.CancelScope()

        async def run() -> None:
            with writer:
                await idle_store.run()

        nursery.start_soon(run)
        nursery.start_soon(idle_store.write, gate)
        await gate.entered.wait()
        nursery.start_soon(expect_closed)
        await trio.testing.wait_all_tasks_blocked()
        writer.cancel()
        gate.opened.set()

    await expect_closed()
    assert refused == ["too late", "too late"]
    assert await idle_store.read(names) == ["under way"]


async def test_a_stopped_writer_commits_what_is_queued(idle_store: Store) -> None:
    """After `stop` the writer empties its queue, then closes."""
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(idle_store.write, add(f"n{number}"))
        await trio.testing.wait_all_tasks_blocked()
        idle_store.stop()
        await idle_store.run()

    assert len(await idle_store.read(names)) == 10
    with pytest.raises(StoreClosed):
        await idle_store.write(add("late"))


async def test_a_writer_runs_again_after_it_was_cancelled(idle_store: Store) -> None:
    """A new `run` opens the store again."""
    with trio.move_on_after(0):
        await idle_store.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_store.run)
        await trio.testing.wait_all_tasks_blocked()
        await idle_store.write(add("again"))
        idle_store.stop()

    assert await idle_store.read(names) == ["again"]


async def test_one_writer_at_a_time(store: Store) -> None:
    """A second `run` beside a running one is refused."""
    await store.write(add("a"))

    with pytest.raises(RuntimeError, match="running already"):
        await store.run()

    assert await store.write(add("b")) == "b"

"""An execution goes on after its actor, or its server, is gone."""

from datetime import datetime, timedelta

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall, NodeError
from tests.kit.flows import Gate, leave_behind, wait_for
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]


class BoomError(Exception):
    """What a test plants."""


def crash(tree: Tree, execution_id: str, times: int) -> None:
    for _ in range(times):
        tree.faults.crash_next(paths.execution(execution_id), BoomError())


class TestOfTheActor:
    async def test_a_crashed_actor_goes_on_from_its_journal(
        self, tree: Tree, components: Components
    ) -> None:
        """What was committed is not repeated; what ran starts again and says so."""
        components["b"] = gate = Gate()
        await tree.workflow("t > a", "a > b", "b > c")
        execution_id = await tree.start()
        await gate.arrived.wait()

        crash(tree, execution_id, 1)
        gate.open.set()
        await tree.ended(execution_id)

        assert await tree.status(execution_id) == "completed"
        assert len(gate.calls) == 2
        assert [call.identity.attempt for call in gate.calls] == [0, 0]
        assert gate.calls[0].identity.idempotency_key == gate.calls[1].identity.idempotency_key
        story = await tree.story(execution_id)
        assert len(story) == len(set(story))
        (row,) = await tree.logs(execution_id, "b")
        assert row["metadata"] == {"recovered": True}
        (row,) = await tree.logs(execution_id, "c")
        assert row["metadata"] is None

    async def test_the_third_recovery_may_succeed(self, tree: Tree) -> None:
        """And its first result forgets the crashes."""
        await tree.workflow("t > a")
        execution_id = await tree.pending()
        crash(tree, execution_id, 3)

        await tree.run_stored(execution_id)

        row = await tree.row(execution_id)
        assert (row.status, row.recovery_count) == ("completed", 0)
        counts = [r.detail["recovery_count"] for r in tree.system.records(event="recovered")]
        assert counts == [1, 2, 3]

    async def test_after_three_crashed_recoveries_it_is_given_up(self, tree: Tree) -> None:
        """No node is left without a result."""
        await tree.workflow("t > a", "a > b")
        execution_id = await tree.pending()
        crash(tree, execution_id, 4)

        await tree.run_stored(execution_id)

        row = await tree.row(execution_id)
        assert row.error_code == "PoisonExecution"
        assert row.error_message == ("Execution recovered as failed: exceeded 3 recovery attempts")
        assert (await tree.story(execution_id))[-3:] == [
            "a failed",
            "b skipped",
            "execution_failed",
        ]

    async def test_starting_a_node_is_no_progress(self, tree: Tree, components: Components) -> None:
        """Only results forget crashes: else a run that starts something each time never ends."""

        async def fail_once(call: NodeCall) -> Outcome:
            await trio.lowlevel.checkpoint()
            if call.identity.attempt == 0:
                tree.faults.crash_next(paths.execution(execution_id), BoomError())
                crash_later.set()
                raise NodeError("no", code="Odd")
            return Outcome(ports={})

        crash_later = trio.Event()
        components["a"] = fail_once
        await tree.workflow("t > a")
        execution_id = await tree.pending()
        # The first turn, which stores the failure, must not crash; the four after it must.
        tree.faults.before_turn = Countdown(paths.execution(execution_id), 1, 4)  # type: ignore[method-assign]

        await tree.run_stored(execution_id)

        assert (await tree.row(execution_id)).error_code == "PoisonExecution"


class Countdown:
    """Let some turns pass, then crash some."""

    def __init__(self, path: str, spare: int, crash: int) -> None:
        self.path, self.spare, self.crash = path, spare, crash

    def __call__(self, path: str) -> None:
        if path != self.path:
            return
        if self.spare:
            self.spare -= 1
        elif self.crash:
            self.crash -= 1
            raise BoomError


class TestOfTheServer:
    async def test_what_was_released_goes_on_uncounted(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """After an orderly stop everything resumes where it was."""
        gate = Gate()
        async with open_tree(store_url, clock, {"a": gate}) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a", "a > b")
            execution_id = await tree.start()
            await gate.arrived.wait()
        gate.open.set()

        async with open_tree(store_url, clock, {"a": gate}, epoch=2) as tree:
            await tree.ended(execution_id)

            assert await tree.status(execution_id) == "completed"
            (record,) = tree.system.records(event="recovered")
            assert record.detail["recovery_count"] == 0
            story = await tree.story(execution_id)
            assert len(story) == len(set(story))

    async def test_what_a_dead_server_left_behind_is_counted(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """Once per crash, until the next result."""
        gate = Gate()
        async with open_tree(store_url, clock, {"a": gate}, grace=0.1) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a")
            execution_id = await tree.start()
            await gate.arrived.wait()
        leave_behind(store_url)
        gate.open.set()

        async with open_tree(store_url, clock, {"a": gate}, epoch=2) as tree:
            await tree.ended(execution_id)

            (record,) = tree.system.records(event="recovered")
            assert record.detail["recovery_count"] == 1
            row = await tree.row(execution_id)
            assert (row.status, row.recovery_count) == ("completed", 0)
            assert (await tree.logs(execution_id, "a"))[0]["metadata"] == {"recovered": True}

    async def test_only_the_rest_of_a_wait_is_waited(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """And a crash during it is not the execution's fault."""
        parts: Components = {"a": wait_for(60.0)}
        async with open_tree(store_url, clock, parts) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a", "a > b")
            execution_id = await tree.start()
            await trio.sleep(20.0)
        leave_behind(store_url)
        await trio.sleep(10.0)

        async with open_tree(store_url, clock, parts, epoch=2) as tree:
            await tree.ended(execution_id)

            events = {
                e.data.get("status"): e.timestamp
                for e in await tree.events(execution_id)
                if e.data.get("node_id") == "a"
            }
            assert events["success"] - events["waiting"] == pytest.approx(60.0, abs=0.1)
            (record,) = tree.system.records(event="recovered")
            assert record.detail["recovery_count"] == 0

    async def test_a_wait_that_ended_meanwhile_ends_at_once(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """However long the server was down."""
        parts: Components = {"a": wait_for(60.0)}
        async with open_tree(store_url, clock, parts) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a")
            execution_id = await tree.start()
            await trio.sleep(20.0)
        await trio.sleep(80_000.0)
        began = trio.current_time()

        async with open_tree(store_url, clock, parts, epoch=2) as tree:
            await tree.ended(execution_id)

            assert trio.current_time() == pytest.approx(began, abs=0.5)
            assert await tree.status(execution_id) == "completed"

    async def test_downtime_does_not_count_against_the_limit(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """What was used before does."""

        async def work(call: NodeCall) -> Outcome:
            await trio.sleep(20.0)
            return Outcome(ports={})

        parts: Components = {"a": work, "b": Gate()}
        async with open_tree(store_url, clock, parts) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a", "a > b")
            execution_id = await tree.start(limit=30)
            await trio.sleep(20.5)
        await trio.sleep(1000.0)
        began = trio.current_time()

        async with open_tree(store_url, clock, parts, epoch=2) as tree:
            await tree.ended(execution_id)

            assert trio.current_time() - began == pytest.approx(10.0, abs=1.0)
            assert (await tree.row(execution_id)).error_code == "ExecutionTimeoutError"

    async def test_a_retry_that_was_due_comes_at_once(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """With the attempt's own number."""
        attempts: list[int] = []

        async def fail_first(call: NodeCall) -> Outcome:
            await trio.lowlevel.checkpoint()
            attempts.append(call.identity.attempt)
            if len(attempts) == 1:
                raise NodeError("no", code="Odd")
            return Outcome(ports={})

        async with open_tree(store_url, clock, {"a": fail_first}) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a")
            execution_id = await tree.start()
            await trio.sleep(0.5)
        await trio.sleep(100.0)

        async with open_tree(store_url, clock, {"a": fail_first}, epoch=2) as tree:
            await tree.ended(execution_id)

            assert attempts == [0, 1]
            assert await tree.status(execution_id) == "completed"
            (last,) = (await tree.logs(execution_id, "a"))[1:]
            assert last["metadata"] == {"attempt": 1}


class Stubborn:
    """A wall clock that was set back once."""

    def __init__(self, start: datetime) -> None:
        self.at = start

    def now(self) -> datetime:
        self.at -= timedelta(seconds=1)
        return self.at


async def test_a_retry_comes_even_if_the_wall_clock_is_set_back(
    store_url: URL, clock: MockClock
) -> None:
    """Its delay is counted by a clock that cannot be set."""
    attempts: list[int] = []

    async def fail_first(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        attempts.append(call.identity.attempt)
        if len(attempts) == 1:
            raise NodeError("no", code="Odd")
        return Outcome(ports={})

    wall = Stubborn(datetime.fromisoformat("2026-02-03T08:15:00+00:00"))
    async with open_tree(store_url, clock, {"a": fail_first}, wall=wall) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")

        execution_id = await tree.run(limit=60)

        assert attempts == [0, 1]
        assert await tree.status(execution_id) == "completed"


async def test_only_the_attempt_that_began_anew_says_so(tree: Tree, components: Components) -> None:
    """A retry after it is an ordinary one."""
    gate = Gate()

    async def fail_after_the_crash(call: NodeCall) -> Outcome:
        outcome = await gate(call)
        if len(gate.calls) == 2:
            raise NodeError("no", code="Odd")
        return outcome

    components["a"] = fail_after_the_crash
    await tree.workflow("t > a")
    execution_id = await tree.start()
    await gate.arrived.wait()

    crash(tree, execution_id, 1)
    gate.open.set()
    await tree.ended(execution_id)

    first, second = await tree.logs(execution_id, "a")
    assert first["metadata"] == {"recovered": True}
    assert second["metadata"] == {"attempt": 1}

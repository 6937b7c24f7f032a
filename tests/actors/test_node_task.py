"""What an attempt of a node sees, how long it may take, and what it saves."""

from typing import Any

import pytest
import trio
from sqlalchemy import URL, func, select
from trio.testing import MockClock

from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Outcome, Report, Usage
from pipelit.nodes.base import Component, NodeCall, NodeError, RunEvent, RunPort
from pipelit.store import schema
from tests.kit.flows import Gate
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]
AGENT = ("t > ag", "m llm> ag")


def port(call: NodeCall) -> RunPort:
    assert call.run is not None
    return call.run


def said(event: str, number: int) -> RunEvent:
    return RunEvent("chat_message", {"execution_id": event, "node_id": "ag", "text": str(number)})


async def saved_runs(tree: Tree) -> int:
    counted = select(func.count()).select_from(schema.run_checkpoints)
    return await tree.store.read(lambda conn: conn.scalar(counted)) or 0


async def test_a_node_sees_the_run_as_it_is_when_it_starts(
    tree: Tree, components: Components
) -> None:
    """Outputs, results, route and trigger; who it is; who came before it."""
    components["b"] = gate = Gate()
    gate.open.set()
    await tree.workflow("t > a", "a > b", "t > b")

    execution_id = await tree.run()

    (call,) = gate.calls
    assert call.identity.execution_id == execution_id
    assert call.identity.idempotency_key == f"{execution_id}:b:0"
    assert call.predecessors == ("a", "t")
    assert call.state["node_outputs"]["a"] == {"output": "a"}
    assert call.state["trigger"]["text"] == "hi"
    assert call.state["user_context"] == {"user_profile_id": 2}
    assert [m["content"] for m in call.state["messages"]] == ["hi"]
    assert call.remaining_seconds == pytest.approx(900, abs=1)


class TestTimeLimitsOfAgents:
    async def test_signs_of_life_keep_an_agent_going(
        self, tree: Tree, components: Components
    ) -> None:
        """However long it takes in all."""

        async def busy(call: NodeCall) -> Outcome:
            for _ in range(10):
                await trio.sleep(8.0)
                port(call).alive()
            return Outcome(ports={})

        components["ag"] = busy
        await tree.workflow(*AGENT, ag={"inactivity_timeout": 10})

        execution_id = await tree.run()

        assert await tree.status(execution_id) == "completed"

    async def test_a_silent_agent_is_tried_again(self, tree: Tree, components: Components) -> None:
        """Its failure has a code of its own."""
        attempts: list[int] = []

        async def silent_at_first(call: NodeCall) -> Outcome:
            attempts.append(call.identity.attempt)
            if len(attempts) == 1:
                await trio.sleep_forever()
            return Outcome(ports={})

        components["ag"] = silent_at_first
        await tree.workflow(*AGENT, ag={"inactivity_timeout": 10})

        execution_id = await tree.run()

        first, second = await tree.logs(execution_id, "ag")
        assert (first["error"], first["error_code"]) == (
            "Agent inactive for 10s",
            "AgentInactivityTimeout",
        )
        assert second["status"] == "success"

    async def test_an_agent_that_takes_too_long_is_not_tried_again(
        self, tree: Tree, components: Components
    ) -> None:
        """However busy it is."""

        async def busy(call: NodeCall) -> Outcome:
            while True:
                await trio.sleep(1.0)
                port(call).alive()

        components["ag"] = busy
        await tree.workflow(*AGENT, ag={"max_wall_time": 60})

        execution_id = await tree.run()

        (row,) = await tree.logs(execution_id, "ag")
        assert row["error"] == "Agent exceeded max_wall_time (60s)"
        assert row["error_code"] == "AgentTimeoutError"

    async def test_the_smallest_limit_counts(self, tree: Tree, components: Components) -> None:
        """A node timeout below the wall time is a node timeout."""
        components["ag"] = Gate()
        await tree.workflow(*AGENT, ag={"max_wall_time": 60, "node_timeout_seconds": 5})

        execution_id = await tree.run()

        assert {row["error_code"] for row in await tree.logs(execution_id, "ag")} == {
            "NodeTimeoutError"
        }


class TestProgress:
    async def test_a_retry_gets_what_the_failed_attempt_saved(
        self, tree: Tree, components: Components
    ) -> None:
        """And knows what was used; the execution forgets it at its end."""
        seen: list[tuple[Any, Usage]] = []

        async def work(call: NodeCall) -> Outcome:
            seen.append((port(call).progress, port(call).recorded))
            if len(seen) == 1:
                await port(call).save({"step": 1}, [said(call.identity.execution_id, 1)])
                port(call).note(Report(usage=Usage(llm_calls=2)))
                raise NodeError("no", code="Odd")
            assert await saved_runs(tree) == 1
            return Outcome(ports={}, report=Report(usage=Usage(llm_calls=1)))

        components["ag"] = work
        await tree.workflow(*AGENT)

        execution_id = await tree.run()

        assert seen == [(None, Usage()), ({"step": 1}, Usage(llm_calls=2))]
        assert (await tree.row(execution_id)).llm_calls == 3
        assert await saved_runs(tree) == 0

    async def test_so_does_the_next_server(self, store_url: URL, clock: MockClock) -> None:
        """Whatever became of the first."""
        seen: list[Any] = []

        async def work(call: NodeCall) -> Outcome:
            seen.append(port(call).progress)
            if len(seen) == 1:
                await port(call).save({"step": 1})
                await trio.sleep_forever()
            return Outcome(ports={})

        async with open_tree(store_url, clock, {"ag": work}, grace=0.1) as tree:
            await add_people(tree.store)
            await tree.workflow(*AGENT)
            execution_id = await tree.start()
            await trio.sleep(1.0)

        async with open_tree(store_url, clock, {"ag": work}, epoch=2) as tree:
            await tree.ended(execution_id)

            assert seen == [None, {"step": 1}]
            assert await tree.status(execution_id) == "completed"

    async def test_events_are_stored_with_it_and_come_in_order(
        self, tree: Tree, components: Components
    ) -> None:
        """Also when several are saved at once."""

        async def work(call: NodeCall) -> Outcome:
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    event = said(call.identity.execution_id, number)
                    nursery.start_soon(port(call).save, {"step": number}, [event])
            return Outcome(ports={"last": port(call).progress})

        components["ag"] = work
        await tree.workflow(*AGENT)
        heard = tree.listen("workflow:flow")

        execution_id = await tree.run()
        await tree.settle()

        stored = [e for e in await tree.events(execution_id) if e.type == "chat_message"]
        assert len(stored) == 20
        assert [copy.seq for copy in heard] == list(range(1, len(heard) + 1))
        (row,) = await tree.logs(execution_id, "ag")
        assert row["output"] == {"last": {"step": int(stored[-1].data["text"])}}

    async def test_what_was_not_stored_is_not_kept(
        self, tree: Tree, components: Components, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A retry would go on from a state whose events nobody has heard."""
        seen: list[Any] = []
        write = tree.store.write

        async def never(unit, key=None, *, patient=False):
            await trio.sleep_forever()

        async def work(call: NodeCall) -> Outcome:
            seen.append(port(call).progress)
            if len(seen) == 1:
                await port(call).save({"step": 1})
                with monkeypatch.context() as patch:
                    patch.setattr(tree.store, "write", never)
                    await port(call).save({"step": 2})
            return Outcome(ports={})

        components["ag"] = work
        await tree.workflow(*AGENT, ag={"node_timeout_seconds": 5})

        execution_id = await tree.run()

        assert tree.store.write == write
        assert seen == [None, {"step": 1}]
        assert await tree.status(execution_id) == "completed"


async def test_what_was_noted_is_reported_when_the_attempt_is_cut_off(
    tree: Tree, components: Components
) -> None:
    """Costs so far are kept."""
    noted = trio.Event()

    async def work(call: NodeCall) -> Outcome:
        port(call).note(Report(usage=Usage(llm_calls=1, total_tokens=7), model="gpt-4o"))
        noted.set()
        await trio.sleep_forever()
        raise AssertionError

    components["ag"] = work
    await tree.workflow(*AGENT)
    execution_id = await tree.start()
    await noted.wait()

    await tree.cancel(execution_id)

    row = await tree.row(execution_id)
    assert (row.llm_calls, row.total_tokens) == (1, 7)
    (log,) = await tree.logs(execution_id, "ag")
    assert log["metadata"]["model"] == "gpt-4o"


async def test_pieces_of_an_answer_are_only_live(tree: Tree, components: Components) -> None:
    """They are not stored."""

    async def work(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        port(call).delta("Hel", 0)
        port(call).delta("lo", 1)
        return Outcome(ports={})

    components["ag"] = work
    await tree.workflow(*AGENT)
    execution_id = await tree.pending()
    heard = tree.listen(f"execution:{execution_id}")

    await tree.run_stored(execution_id)
    await tree.settle()

    assert [copy.type for copy in heard].count("chat_delta") == 2
    assert "chat_delta" not in await tree.story(execution_id)


class TestMemory:
    async def test_what_a_node_remembers_is_there_in_the_next_run(
        self, tree: Tree, components: Components
    ) -> None:
        """Of the same user and workflow."""
        seen: list[list[str]] = []

        async def work(call: NodeCall) -> Outcome:
            seen.append([m.text for m in await port(call).history()])
            return Outcome(ports={}, remember=(message(f"turn {len(seen)}"),))

        components["ag"] = work
        await tree.workflow(*AGENT)

        await tree.run()
        await tree.run()
        await tree.run(user_id=1)

        assert seen == [[], ["turn 1"], []]

    async def test_a_run_that_fails_leaves_nothing(
        self, tree: Tree, components: Components
    ) -> None:
        """Memory never holds half an exchange."""
        seen: list[list[str]] = []

        async def work(call: NodeCall) -> Outcome:
            seen.append([m.text for m in await port(call).history()])
            await port(call).save({"step": 1})
            raise NodeError("no", code="Odd", retryable=False)

        components["ag"] = work
        await tree.workflow(*AGENT)

        await tree.run()
        await tree.run()

        assert seen == [[], []]


def message(text: str) -> ChatMessage:
    return ChatMessage(id=text, role="user", content=text, timestamp="2026-01-01T00:00:00")


@pytest.mark.parametrize("bad", ["NUL \x00", "half \ud800", 2**70, object()])
async def test_a_result_that_cannot_be_stored_fails_its_node_only(
    tree: Tree, components: Components, bad: object
) -> None:
    """At once, and the port is named."""

    async def component(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Outcome(ports={"output": bad})

    components["a"] = component
    await tree.workflow("t > a")

    execution_id = await tree.run()

    (row,) = await tree.logs(execution_id, "a")
    assert row["error_code"] == "UnstorableOutput"
    assert "port 'output'" in row["error"]
    assert await tree.status(execution_id) == "failed"


async def test_the_message_of_a_failure_is_stored_readable(
    tree: Tree, components: Components
) -> None:
    """Even if it holds what no database takes."""

    async def component(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        raise NodeError("half \ud800 and\x00", code="ToolError", retryable=False)

    components["a"] = component
    await tree.workflow("t > a")

    execution_id = await tree.run()

    (row,) = await tree.logs(execution_id, "a")
    assert (row["error"], row["error_code"]) == ("half \ufffd and\ufffd", "ToolError")


async def test_progress_is_stored_readable(tree: Tree, components: Components) -> None:
    """So are the events that come with it."""

    async def component(call: NodeCall) -> Outcome:
        await port(call).save({"said": "a\x00"}, [said("\ud800", 1)])
        return Outcome(ports={"output": port(call).progress})

    components["ag"] = component
    await tree.workflow(*AGENT)

    execution_id = await tree.run()

    (row,) = await tree.logs(execution_id, "ag")
    assert row["output"] == {"output": {"said": "a\ufffd"}}


async def test_progress_that_is_too_large_fails_the_node(
    tree: Tree, components: Components
) -> None:
    """A run cannot fill the store on its way."""

    async def component(call: NodeCall) -> Outcome:
        await port(call).save({"said": "x" * 16_777_216})
        return Outcome(ports={})

    components["ag"] = component
    await tree.workflow(*AGENT)

    execution_id = await tree.run()

    (row,) = await tree.logs(execution_id, "ag")
    assert row["error_code"] == "OutputTooLargeError"
    assert row["error"] == "Node progress too large (16777227 bytes, limit 16777216)"

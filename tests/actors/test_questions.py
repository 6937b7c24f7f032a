"""A run asks a person, waits without an actor, and goes on with the answer. engine.md §16."""

from typing import Any

import pytest
import trio

from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import Component, NodeCall
from pipelit.nodes.confirmation import human_confirmation
from pipelit.store.queries import questions
from tests.kit.flows import Gate, wait_for
from tests.kit.tree import Tree

Components = dict[str, Component]


class Heard:
    """A component that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def __call__(self, call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        self.calls.append(call.state["resume_input"])
        return Outcome(ports={"output": "done"})


class TestFlags:
    async def test_a_node_waits_for_an_answer_before_it_runs(
        self, tree: Tree, components: Components
    ) -> None:
        """Nobody owns the run meanwhile; the node is told the answer."""
        components["a"] = heard = Heard()
        await tree.workflow("t > a", "a > b")
        await tree.flag("a", before=True)
        execution_id = await tree.start()

        question = await tree.interrupted(execution_id)
        row = await tree.row(execution_id)
        shown = await tree.answer(execution_id, "as you like")
        await tree.ended(execution_id)

        assert (row.owner, row.epoch, heard.calls) == (None, None, ["as you like"])
        assert question.prompt == "Confirmation required at node 'a' (before execution)."
        assert (question.expires_at - question.created_at).total_seconds() == 300
        assert shown in {"running", "completed"}
        assert await tree.status(execution_id) == "completed"
        assert await tree.story(execution_id) == [
            "execution_started",
            "a pending",
            "a waiting",
            "execution_interrupted",
            "a running",
            "a success",
            "b pending",
            "b running",
            "b success",
            "execution_completed",
        ]
        waiting, interrupted = (await tree.events(execution_id))[2:4]
        assert waiting.data["task_id"] == question.task_id
        assert interrupted.data == {
            "execution_id": execution_id,
            "node_id": "a",
            "task_id": question.task_id,
            "prompt": question.prompt,
            "expires_at": question.expires_at.replace(tzinfo=None).isoformat(),
        }

    async def test_successors_wait_for_an_answer_after_a_node(
        self, tree: Tree, components: Components
    ) -> None:
        """The node has succeeded and does not run again."""
        components["a"] = heard = Heard()
        await tree.workflow("t > a", "a > b")
        await tree.flag("a", after=True)
        execution_id = await tree.start()

        await tree.interrupted(execution_id)
        story = await tree.story(execution_id)
        await tree.answer(execution_id, "yes")
        await tree.ended(execution_id)

        assert story[-2:] == ["a success", "execution_interrupted"]
        assert (await tree.story(execution_id))[5:] == [
            "b pending",
            "b running",
            "b success",
            "execution_completed",
        ]
        assert heard.calls == [None]

    @pytest.mark.parametrize("word", ["no", " Cancel ", "N", "reject", "false", "0"])
    async def test_a_refusal_cancels(self, tree: Tree, word: str) -> None:
        """What waited is cut off, what follows is skipped; nothing runs."""
        await tree.workflow("t > a", "a > b")
        await tree.flag("a", before=True)
        execution_id = await tree.start()
        await tree.interrupted(execution_id)

        assert await tree.answer(execution_id, word) == "cancelled"

        row = await tree.row(execution_id)
        assert (row.error_message, row.error_code) == ("", None)
        assert (await tree.story(execution_id))[4:] == [
            "a failed",
            "b skipped",
            "execution_cancelled",
        ]
        (log,) = await tree.logs(execution_id, "a")
        assert (log["error"], log["error_code"]) == ("Execution cancelled", "Cancelled")

    async def test_a_retried_node_asks_once(self, tree: Tree, components: Components) -> None:
        """The answer counts for the activation, not for the attempt."""
        calls = []

        async def fail_once(call: NodeCall) -> Outcome:
            await trio.lowlevel.checkpoint()
            calls.append(call.state["resume_input"])
            if len(calls) == 1:
                raise ValueError("no")
            return Outcome(ports={})

        components["a"] = fail_once
        await tree.workflow("t > a")
        await tree.flag("a", before=True)
        execution_id = await tree.start()
        await tree.interrupted(execution_id)

        await tree.answer(execution_id, "yes")
        await tree.ended(execution_id)

        assert calls == ["yes", "yes"]
        assert (await tree.story(execution_id)).count("execution_interrupted") == 1


class TestConfirmations:
    @pytest.fixture
    def components(self) -> Components:
        return {"q": human_confirmation}

    async def test_its_prompt_is_its_own(self, tree: Tree) -> None:
        """And a yes goes on; the answer is a port."""
        await tree.workflow("t > q", "q > b", q={"prompt": "Pay 118?"})
        execution_id = await tree.start()

        question = await tree.interrupted(execution_id)
        await tree.answer(execution_id, " YES ")
        await tree.ended(execution_id)

        assert question.prompt == "Pay 118?"
        (log,) = await tree.logs(execution_id, "q")
        assert log["output"] == {"confirmed": True, "user_response": " YES "}
        assert await tree.status(execution_id) == "completed"

    async def test_a_rejection_that_nobody_minds_ends_the_run(self, tree: Tree) -> None:
        """The node has run; what follows has not."""
        await tree.workflow("t > q", "q > b")
        execution_id = await tree.start()
        await tree.interrupted(execution_id)

        await tree.answer(execution_id, "rather not")
        await tree.ended(execution_id)

        row = await tree.row(execution_id)
        assert (row.error_message, row.error_code) == ("Rejected at 'q'", "ConfirmationRejected")
        assert (await tree.story(execution_id))[4:] == [
            "q running",
            "q success",
            "b skipped",
            "execution_cancelled",
        ]

    @pytest.mark.parametrize(
        ("edges", "config", "status"),
        [
            (("t > q", "q > s", "s ?x> b"), {}, "completed"),
            (("t > q", "q > b"), {"on_reject": "continue"}, "completed"),
            (("t > q", "q > s", "s ?x> b"), {"on_reject": "cancel"}, "cancelled"),
            (("t > q",), {}, "cancelled"),
        ],
    )
    async def test_what_a_rejection_means_is_configured(
        self, tree: Tree, edges: tuple[str, ...], config: dict[str, Any], status: str
    ) -> None:
        """By default it goes on where a switch follows."""
        await tree.workflow(*edges, q=config)
        execution_id = await tree.start()
        await tree.interrupted(execution_id)

        await tree.answer(execution_id, "no")
        await tree.ended(execution_id)

        assert await tree.status(execution_id) == status

    async def test_silence_is_a_rejection(self, tree: Tree) -> None:
        """After 300 seconds, in which nothing ran."""
        await tree.workflow("t > q", "q > b", q={"on_reject": "continue"})
        execution_id = await tree.start()
        question = await tree.interrupted(execution_id)

        await trio.sleep(299)
        before = await tree.status(execution_id)
        await trio.sleep(2)
        await tree.ended(execution_id)

        assert (before, await tree.status(execution_id)) == ("interrupted", "completed")
        (log,) = await tree.logs(execution_id, "q")
        assert log["output"] == {"confirmed": False, "user_response": ""}
        assert (log["timestamp"] - question.expires_at).total_seconds() < 1
        assert (await tree.row(execution_id)).active_us < 1_000_000


class TestBranches:
    async def test_other_branches_go_on_and_an_answer_is_taken_meanwhile(
        self, tree: Tree, components: Components
    ) -> None:
        """The run is not interrupted as long as something runs."""
        components["b"] = gate = Gate()
        components["a"] = heard = Heard()
        await tree.workflow("t > a", "t > b", "a > c", "b > c")
        await tree.flag("a", before=True)
        execution_id = await tree.start()
        await gate.arrived.wait()
        await tree.asked(execution_id)

        assert await tree.answer(execution_id, "ok") == "running"
        await tree.settle()
        assert heard.calls == ["ok"]
        gate.open.set()
        await tree.ended(execution_id)

        assert await tree.status(execution_id) == "completed"

    async def test_it_is_interrupted_when_the_last_other_branch_ends(
        self, tree: Tree, components: Components
    ) -> None:
        """Timed waits and retries count as running; two questions need two answers."""
        components["b"] = wait_for(50.0)
        await tree.workflow("t > a", "t > b", "t > c", "a > d", "b > d", "c > d")
        await tree.flag("a", before=True)
        await tree.flag("c", after=True)
        execution_id = await tree.start()
        first, second = await tree.asked(execution_id, 2)

        assert await tree.status(execution_id) == "running"
        await tree.gone(execution_id)
        assert await tree.status(execution_id) == "interrupted"
        await tree.answer(execution_id, "ok", second.task_id)
        await tree.gone(execution_id)
        assert await tree.status(execution_id) == "interrupted"
        await tree.answer(execution_id, "ok", first.task_id)
        await tree.ended(execution_id)

        assert await tree.status(execution_id) == "completed"
        assert (await tree.row(execution_id)).active_us >= 50_000_000

    async def test_an_answer_of_another_server_is_seen_within_a_second(
        self, tree: Tree, components: Components
    ) -> None:
        """Nobody tells the actor; the end of the other branch does not interrupt the run."""
        components["b"] = gate = Gate()
        await tree.workflow("t > a", "t > b", "a > c", "b > c")
        await tree.flag("a", before=True)
        execution_id = await tree.start()
        (question,) = await tree.asked(execution_id)
        await gate.arrived.wait()
        now = tree.clock.now()

        gate.open.set()
        await tree.store.write(
            lambda conn: questions.answer(conn, execution_id, question.task_id, "ok", now=now)
        )
        await tree.ended(execution_id)

        assert await tree.status(execution_id) == "completed"
        ended = (await tree.row(execution_id)).completed_at
        assert (ended - now).total_seconds() <= 1.1

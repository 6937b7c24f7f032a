"""Answers count once, silence ends the waiting, also over restarts. Contract: engine.md §16."""

from functools import partial
from typing import Any, cast

import msgspec
import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.actors.delivery import Delivery
from pipelit.actors.runtime import ChildSpec
from pipelit.clock import Clock
from pipelit.errors import BadRequest, Conflict
from pipelit.net.gateway import Gateway
from pipelit.nodes.confirmation import human_confirmation
from pipelit.services.confirmations import Confirmations
from pipelit.store import Store
from pipelit.store.queries import executions as queries
from pipelit.store.queries import questions
from tests.actors.test_delivery import FakeGateway
from tests.actors.test_questions import Components, Heard
from tests.kit.flows import Gate, leave_behind, wait_for
from tests.kit.tree import Tree, add_people, open_tree


class TestAnswering:
    async def test_one_of_many_answers_counts(self, tree: Tree, components: Components) -> None:
        """The others are told so; the node runs once."""
        components["a"] = heard = Heard()
        await tree.workflow("t > a")
        await tree.flag("a", before=True)
        execution_id = await tree.start()
        question = await tree.interrupted(execution_id)
        outcomes: list[Any] = []

        async def answer(task_id: str | None) -> None:
            try:
                outcomes.append(await tree.answer(execution_id, "yes", task_id))
            except (Conflict, BadRequest) as error:
                outcomes.append(type(error))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(answer, question.task_id if number % 2 else None)
        await tree.ended(execution_id)

        assert len([one for one in outcomes if isinstance(one, str)]) == 1
        assert set(map(str, outcomes)) >= {str(Conflict), str(BadRequest)}
        assert heard.calls == ["yes"]

    async def test_a_crash_after_an_answer_loses_nothing(
        self, tree: Tree, components: Components
    ) -> None:
        """The answer is stored before the node goes on; it is taken once."""
        components["a"] = heard = Heard()
        await tree.workflow("t > a")
        await tree.flag("a", before=True)
        execution_id = await tree.start()
        await tree.interrupted(execution_id)
        tree.faults.crash_next(paths.execution(execution_id), ValueError("boom"))

        await tree.answer(execution_id, "yes")
        await tree.ended(execution_id)

        assert heard.calls in (["yes"], ["yes", "yes"])  # at least once
        assert (await tree.story(execution_id)).count("a success") == 1

    async def test_waiting_holds_neither_a_slot_nor_the_session(
        self, store_url: URL, clock: MockClock, components: Components
    ) -> None:
        """Whoever comes next runs; the answered run goes on without waiting for a slot."""
        components["b"] = gate = Gate()
        async with open_tree(store_url, clock, components, max_running=1) as tree:
            await add_people(tree.store)
            asking = await tree.workflow("t > a", slug="asking")
            other = await tree.workflow("t > b", slug="other")
            await tree.flag("a", before=True)
            first, _ = await tree.post(workflow_id=asking)
            await tree.interrupted(first)
            second, _ = await tree.post(workflow_id=asking)
            await tree.interrupted(second)
            await tree.start(other)
            await gate.arrived.wait()

            await tree.answer(first, "yes")
            await tree.ended(first)

            assert await tree.status(first) == "completed"
            gate.open.set()

    async def test_later_messages_wait_for_a_run_that_goes_on(
        self, tree: Tree, components: Components
    ) -> None:
        """One at a time again, as soon as it is answered."""
        components["b"] = gate = Gate()
        await tree.workflow("t > a", "a > b")
        await tree.flag("a", before=True)
        first, _ = await tree.post()
        await tree.interrupted(first)

        await tree.answer(first, "yes")
        await gate.arrived.wait()
        second, _ = await tree.post()
        await tree.settle()
        meanwhile = await tree.status(second)
        gate.open.set()
        await tree.ended(first)
        await tree.interrupted(second)

        assert meanwhile == "pending"

    async def test_an_interrupted_run_can_be_cancelled(self, tree: Tree) -> None:
        """Its question is gone; the actor that ends it is too."""
        await tree.workflow("t > a", "a > b")
        await tree.flag("a", before=True)
        execution_id = await tree.start()
        question = await tree.interrupted(execution_id)

        await tree.cancel(execution_id)

        assert await tree.status(execution_id) == "cancelled"
        assert (await tree.story(execution_id))[4:] == [
            "a failed",
            "b skipped",
            "execution_cancelled",
        ]
        with pytest.raises(Conflict):
            await tree.answer(execution_id, "yes", question.task_id)
        with pytest.raises(BadRequest):
            await tree.answer(execution_id, "yes")


class TestTime:
    async def test_an_unanswered_flag_cancels(self, tree: Tree) -> None:
        """With the reason, when its time is over."""
        await tree.workflow("t > a")
        await tree.flag("a", before=True)
        execution_id = await tree.start(limit=10)
        question = await tree.interrupted(execution_id)

        await tree.ended(execution_id)

        row = await tree.row(execution_id)
        assert (row.status, row.error_code) == ("cancelled", "ConfirmationExpired")
        assert row.error_message == "Confirmation expired at node 'a'"
        assert 0 <= (row.completed_at - question.expires_at).total_seconds() < 1
        with pytest.raises(Conflict):
            await tree.answer(execution_id, "yes", question.task_id)

    async def test_an_unanswered_question_of_a_running_run_cancels_it_too(
        self, tree: Tree, components: Components
    ) -> None:
        """Whatever else runs."""
        components["b"] = Gate()
        await tree.workflow("t > a", "t > b")
        await tree.flag("a", before=True)
        execution_id = await tree.start()

        await tree.ended(execution_id)

        assert (await tree.row(execution_id)).error_code == "ConfirmationExpired"

    async def test_waiting_for_an_answer_does_not_use_the_limit(self, tree: Tree) -> None:
        """Ten seconds of work may take minutes of waiting."""
        await tree.workflow("t > a")
        await tree.flag("a", before=True)
        execution_id = await tree.start(limit=10)
        await tree.interrupted(execution_id)

        await trio.sleep(200)
        await tree.answer(execution_id, "yes")
        await tree.ended(execution_id)

        assert await tree.status(execution_id) == "completed"

    async def test_questions_outlive_the_server(
        self, store_url: URL, clock: MockClock, components: Components
    ) -> None:
        """After any downtime: an answer goes on, silence ends, each exactly once."""
        components["a"] = heard = Heard()
        async with open_tree(store_url, clock, components) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a")
            await tree.flag("a", before=True)
            silent, answered = await tree.start(), await tree.start()
            await tree.interrupted(silent)
            await tree.interrupted(answered)
        async with open_tree(store_url, clock, components, epoch=2) as tree:
            await tree.answer(answered, "yes")
            await tree.ended(answered)
        await trio.sleep(1000)
        async with open_tree(store_url, clock, components, epoch=3) as tree:
            await tree.ended(silent)

            assert (await tree.row(silent)).error_code == "ConfirmationExpired"
            assert await tree.status(answered) == "completed"
            assert (await tree.row(silent)).recovery_count == 0
        assert heard.calls == ["yes"]

    async def test_a_crash_between_question_and_answer_is_no_recovery(
        self, store_url: URL, clock: MockClock, components: Components
    ) -> None:
        """A run that only waits did not crash its server; its question stays the same."""
        components["b"] = wait_for(500.0)
        async with open_tree(store_url, clock, components) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a", "t > b")
            await tree.flag("a", before=True)
            execution_id = await tree.start()
            (question,) = await tree.asked(execution_id)
            await tree.settle()
        leave_behind(store_url)
        async with open_tree(store_url, clock, components, epoch=2) as tree:
            (again,) = await tree.asked(execution_id)
            await tree.answer(execution_id, "yes")
            await tree.ended(execution_id)

            assert again == question
            assert await tree.status(execution_id) == "completed"
            assert (await tree.row(execution_id)).recovery_count == 0
            assert (await tree.story(execution_id)).count("execution_interrupted") == 1


async def test_an_answer_counts_when_the_manager_does_not_hear_of_it(tree: Tree) -> None:
    """The reconciler finds a run that was answered and that nobody runs."""
    await tree.workflow("t > a")
    await tree.flag("a", before=True)
    execution_id = await tree.start()
    question = await tree.interrupted(execution_id)
    now = tree.clock.now()

    await tree.store.write(
        lambda conn: questions.answer(conn, execution_id, question.task_id, "yes", now=now)
    )
    assert await tree.status(execution_id) == "running"
    with trio.fail_after(40):
        await tree.ended(execution_id)
    assert await tree.status(execution_id) == "completed"


async def test_the_chat_that_asked_is_asked(
    store_url: URL, clock: MockClock, components: Components
) -> None:
    """With the commands that answer; the question knows its chat."""
    gateway = FakeGateway()

    def delivery(store: Store, _: object, wall: Clock) -> list[ChildSpec]:
        start = partial(Delivery, store, wall, cast("Gateway", gateway))
        return [ChildSpec(id="delivery", kind="delivery", start=start)]

    components["q"] = human_confirmation
    async with open_tree(store_url, clock, components, more=delivery) as tree:
        await add_people(tree.store)
        await tree.workflow("t > q", q={"prompt": "Pay?"})
        new = tree.new()
        new = msgspec.structs.replace(
            new, trigger={**new.trigger, "credential_id": "bot", "chat_id": 5512}
        )
        await tree.store.write(lambda conn: queries.create(conn, new))
        await tree.run_stored(new.id)
        question = await tree.interrupted(new.id)
        await trio.sleep(1)
        service = Confirmations(tree.store, tree.clock, manager=tree.manager)

        strange = await service.resume(question.task_id, "confirm", "other chat")
        taken = await service.resume(question.task_id, "confirm", "5512")
        again = await service.resume(question.task_id, "confirm", "5512")
        await tree.ended(new.id)

        assert (strange, taken, again) == ("not_found", "confirmed", "not_found")
        assert await tree.status(new.id) == "completed"
    task_id = question.task_id
    text = f"Pay?\n\nTo confirm: /confirm_{task_id}\nTo cancel: /cancel_{task_id}"
    assert gateway.sent[0] == ("bot", "5512", text)

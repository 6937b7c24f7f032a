"""The budget of an epic, against executions that run at the same time. Contract: engine.md §25.4.

A model call of these tests uses 15 tokens, 10 of them given, and reserves 105: a prompt of 5 and
an answer of at most 100. At the prices of `gpt-4o` it costs 75 micro-dollars and reserves 1013.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import trio
from sqlalchemy import URL, Connection, insert, select, update
from trio.testing import MockClock

from pipelit.actors.manager import Start
from pipelit.actors.roll_up import Look, RollUp
from pipelit.actors.runtime.testing import open_kit
from pipelit.actors.turns import Subjects
from pipelit.engine.budget import Estimate
from pipelit.engine.messages import ToolCall
from pipelit.engine.outcome import Outcome, Usage
from pipelit.llm.prices import Prices
from pipelit.llm.types import ContextOverflow, ModelResponse, ProviderError, ProviderSpec
from pipelit.nodes.agent import AgentParts, agent_component
from pipelit.nodes.agent_model import ModelParts
from pipelit.nodes.base import Component, NodeCall
from pipelit.store import schema
from pipelit.store.queries import budgets
from tests.kit.flows import Gate, leave_behind
from tests.kit.tree import START, Tree, add_people, open_tree
from tests.nodes.agents import SPEC, Script, calls, says, tools_of

Components = dict[str, Component]
AGENT = ("t > ag", "m llm> ag")
EXCEEDED = "BudgetExceededError"


def agent(script: Script, tools: Mapping[str, Any] | None = None) -> Component:
    """Return an agent that asks *script*."""

    async def find_credential(credential_id: int) -> Any:
        await trio.lowlevel.checkpoint()
        return SPEC

    async def is_local(spec: ProviderSpec) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    models = ModelParts(
        providers=script, find_credential=find_credential, prices=Prices(), is_local=is_local
    )
    return agent_component(AgentParts(models=models, tools=tools_of(tools or {}, 300.0)))


class Line:
    """Model calls that the test answers one by one; `open` are those under way."""

    def __init__(self) -> None:
        self.open = 0
        self.begun = 0
        self.most = 0
        self._answers = trio.Semaphore(0)

    async def __call__(self) -> ModelResponse:
        self.open += 1
        self.begun += 1
        self.most = max(self.most, self.open)
        try:
            await self._answers.acquire()
        finally:
            self.open -= 1
        return says("Done.")

    def answer(self) -> None:
        self._answers.release()


async def fund(tree: Tree, *execution_ids: str, **epic: Any) -> None:
    """Make an epic with a task for each execution."""
    same = {"tags": [], "created_at": START, "updated_at": START, "title": "T"}

    def write(conn: Connection) -> None:
        conn.execute(insert(schema.epics).values(id="ep-1", **same, **epic))
        for number, execution_id in enumerate(execution_ids):
            conn.execute(
                insert(schema.tasks).values(
                    id=f"tk-{number}",
                    epic_id="ep-1",
                    depends_on=[],
                    notes=[],
                    status="running",
                    execution_id=execution_id,
                    **same,
                )
            )

    await tree.store.write(write)


async def set_up(tree: Tree, *edges: str, model: str = "gpt-4o") -> None:
    """Store a workflow whose node `m` is a model."""
    await tree.workflow(*(edges or AGENT))
    credential = {"id": 1, "name": "C", "credential_type": "llm", "detail": {}}
    config = {"model_name": model, "max_tokens": 100}

    def write(conn: Connection) -> None:
        conn.execute(
            insert(schema.credentials).values(**credential, created_at=START, updated_at=START)
        )
        nodes = schema.nodes
        statement = update(nodes).where(nodes.c.node_id == "m")
        conn.execute(statement.values(config=config, llm_credential_id=1))

    await tree.store.write(write)


async def funded(tree: Tree, count: int = 1, **epic: Any) -> list[str]:
    """Store pending executions under one epic."""
    found = [await tree.pending() for _ in range(count)]
    await fund(tree, *found, **epic)
    return found


async def rows(tree: Tree) -> list[tuple[int, int, bool]]:
    """Return what is stored of model calls: tokens, money, settled."""
    table = schema.reservations
    statement = select(table.c.tokens, table.c.micros, table.c.settled).order_by(table.c.created_at)
    found = await tree.store.read(lambda conn: conn.execute(statement).all())
    return [tuple(row) for row in found]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so, or cannot become so without help."""
    for _ in range(200):
        if condition():
            return
        await trio.sleep(0.05)


class TestBeforeANode:
    async def test_no_node_starts_when_more_is_used_than_the_budget_allows(
        self, tree: Tree
    ) -> None:
        """The execution fails at once, with the plain text."""
        await tree.workflow("t > a")
        (execution_id,) = await funded(tree, budget_tokens=10, spent_tokens=11)

        await tree.run_stored(execution_id)

        row = await tree.row(execution_id)
        text = "Epic budget exceeded: 11 tokens used (budget: 10 tokens)"
        assert (row.status, row.error_message, row.error_code) == ("failed", text, EXCEEDED)
        assert await tree.story(execution_id) == [
            "execution_started",
            "a pending",
            "a skipped",
            "execution_failed",
        ]

    async def test_money_is_told_in_dollars(self, tree: Tree) -> None:
        """With four decimals."""
        await tree.workflow("t > a")
        (execution_id,) = await funded(tree, budget_micros=1_000_000, spent_micros=1_234_560)

        await tree.run_stored(execution_id)

        row = await tree.row(execution_id)
        assert row.error_message == "Epic budget exceeded: $1.2346 spent (budget: $1.0000)"

    async def test_a_budget_may_be_used_to_its_last_token(self, tree: Tree) -> None:
        """Equality is allowed."""
        await tree.workflow("t > a")
        (execution_id,) = await funded(tree, budget_tokens=10, spent_tokens=10)

        await tree.run_stored(execution_id)

        assert await tree.status(execution_id) == "completed"

    async def test_what_a_node_used_counts_for_the_next(
        self, tree: Tree, components: Components
    ) -> None:
        """Its result stays; nothing handles the end of the money."""
        components["ag"] = agent(Script(says("Done.")))
        await set_up(tree, *AGENT, "ag > b", "b > h")
        (execution_id,) = await funded(tree, budget_tokens=14)

        await tree.run_stored(execution_id)

        row = await tree.row(execution_id)
        text = "Epic budget exceeded: 15 tokens used (budget: 14 tokens)"
        assert (row.status, row.error_message, row.total_tokens) == ("failed", text, 15)
        story = await tree.story(execution_id)
        assert "ag success" in story
        assert "b running" not in story
        assert await rows(tree) == []

    async def test_executions_of_no_task_have_no_budget(self, tree: Tree) -> None:
        """An epic that is overdrawn is not theirs."""
        await tree.workflow("t > a")
        await fund(tree, budget_tokens=0, spent_tokens=1)

        execution_id = await tree.run()

        assert await tree.status(execution_id) == "completed"


class TestBeforeAModelCall:
    async def test_an_agent_stops_when_its_own_calls_used_too_much(
        self, tree: Tree, components: Components
    ) -> None:
        """At once, without retry and without the node's name; what it used is kept."""

        async def add(arguments: dict[str, Any], context: Any) -> str:
            await trio.lowlevel.checkpoint()
            return "3"

        script = Script(calls(ToolCall("c1", "calculator", {"a": 1})), says("never"))
        components["ag"] = agent(script, {"calculator": add})
        await set_up(tree, *AGENT, "calc tool> ag", "ag > b")
        (execution_id,) = await funded(tree, budget_tokens=14)

        await tree.run_stored(execution_id)

        row = await tree.row(execution_id)
        text = "Epic budget exceeded: 15 tokens used (budget: 14 tokens)"
        assert (row.status, row.error_message, row.error_code) == ("failed", text, EXCEEDED)
        assert (row.total_tokens, row.cost_micros, row.llm_calls) == (15, 75, 1)
        assert len(script.requests) == 1
        (log,) = await tree.logs(execution_id, "ag")
        assert (log["status"], log["error_code"]) == ("failed", EXCEEDED)
        assert await rows(tree) == []

    async def test_a_model_without_a_price_is_refused_when_money_counts(
        self, tree: Tree, components: Components
    ) -> None:
        """Before the call is made."""
        script = Script(says("never"))
        components["ag"] = agent(script)
        await set_up(tree, model="mystery")
        (execution_id,) = await funded(tree, budget_micros=1_000_000)

        await tree.run_stored(execution_id)

        row = await tree.row(execution_id)
        assert (row.status, row.error_code, script.requests) == ("failed", "UnknownPriceError", [])
        assert row.error_message == (
            "No price known for model 'mystery'; a USD budget applies. "
            "Add the model to MODEL_PRICES or remove the budget."
        )

    async def test_a_model_without_a_price_may_use_tokens(
        self, tree: Tree, components: Components
    ) -> None:
        """A budget of tokens asks for no price."""
        components["ag"] = agent(Script(says("Done.")))
        await set_up(tree, model="mystery")
        (execution_id,) = await funded(tree, budget_tokens=100)

        await tree.run_stored(execution_id)

        assert await tree.status(execution_id) == "completed"


class TestAtTheSameTime:
    async def test_calls_run_together_while_there_is_room(
        self, tree: Tree, components: Components
    ) -> None:
        """Each is reserved with its prompt and the longest answer."""
        line = Line()
        components["ag"] = agent(Script(line, line))
        await set_up(tree)
        ids = await funded(tree, 2, budget_tokens=1000)

        async with trio.open_nursery() as nursery:
            for execution_id in ids:
                nursery.start_soon(tree.run_stored, execution_id)
            await until(lambda: line.open == 2)
            assert await rows(tree) == [(105, 1013, False)] * 2
            line.answer()
            line.answer()

        assert [await tree.status(one) for one in ids] == ["completed"] * 2

    @pytest.mark.parametrize("budget", [{"budget_tokens": 100}, {"budget_micros": 1000}])
    async def test_near_the_end_of_a_budget_they_wait_for_each_other(
        self, tree: Tree, components: Components, budget: dict[str, int]
    ) -> None:
        """So two of them cannot use up the same rest."""
        line = Line()
        components["ag"] = agent(Script(line, line, line))
        await set_up(tree)
        ids = await funded(tree, 3, **budget)

        async with trio.open_nursery() as nursery:
            for execution_id in ids:
                nursery.start_soon(tree.run_stored, execution_id)
            for number in (1, 2, 3):
                await until(lambda number=number: line.begun == number)
                await trio.sleep(5)
                line.answer()

        assert (line.begun, line.most) == (3, 1)
        assert [await tree.status(one) for one in ids] == ["completed"] * 3

    async def test_who_waits_is_refused_when_the_other_used_it_up(
        self, tree: Tree, components: Components
    ) -> None:
        """The budget is passed by one call at most."""
        line = Line()
        components["ag"] = agent(Script(line))
        await set_up(tree)
        ids = await funded(tree, 2, budget_tokens=14)

        async with trio.open_nursery() as nursery:
            for execution_id in ids:
                nursery.start_soon(tree.run_stored, execution_id)
            await until(lambda: line.open == 1)
            await trio.sleep(5)
            line.answer()

        assert sorted([await tree.status(one) for one in ids]) == ["completed", "failed"]
        assert line.begun == 1

    @pytest.mark.parametrize("way", ["cancel", "fail"])
    async def test_a_call_that_did_not_end_well_makes_room(
        self, tree: Tree, components: Components, way: str
    ) -> None:
        """Cancelled, or broken off by the provider."""
        line, broken = Line(), trio.Event()

        async def hang() -> ModelResponse:
            await broken.wait()
            raise ProviderError("no", code="BadRequestError", retryable=False)

        components["ag"] = agent(Script(hang, line))
        await set_up(tree)
        first, second = await funded(tree, 2, budget_tokens=100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.run_stored, first)
            await tree.settle()
            await trio.sleep(1)
            nursery.start_soon(tree.run_stored, second)
            await trio.sleep(5)
            assert line.begun == 0
            if way == "cancel":
                await tree.cancel(first)
            broken.set()
            await until(lambda: line.begun == 1)
            line.answer()

        assert await tree.status(second) == "completed"
        assert await rows(tree) == []

    async def test_who_waits_can_be_cancelled(self, tree: Tree, components: Components) -> None:
        """And holds back nobody after it."""
        line = Line()
        components["ag"] = agent(Script(line, line))
        await set_up(tree)
        first, second, third = await funded(tree, 3, budget_tokens=100)

        async with trio.open_nursery() as nursery:
            for execution_id in (first, second, third):
                nursery.start_soon(tree.run_stored, execution_id)
                await trio.sleep(1)
            await tree.cancel(second)
            line.answer()
            await until(lambda: line.begun == 2)
            line.answer()

        statuses = [await tree.status(one) for one in (first, second, third)]
        assert statuses == ["completed", "cancelled", "completed"]

    async def test_several_calls_of_one_node_do_not_wait_for_each_other_for_ever(
        self, tree: Tree, components: Components
    ) -> None:
        """What an ended call used is settled with the next one, at the latest."""
        script = Script(says("a"), says("b"))

        async def twice(call: NodeCall) -> Any:
            await agent(script)(call)
            return await agent(script)(call)

        components["ag"] = twice
        await set_up(tree)
        (execution_id,) = await funded(tree, budget_tokens=100)

        await tree.run_stored(execution_id)

        assert await tree.status(execution_id) == "completed"

    async def test_a_call_is_made_again_while_others_wait_for_room(
        self, tree: Tree, components: Components
    ) -> None:
        """It joins the line with nothing reserved: nobody in front waits for it."""
        line, waited_for, begun = Line(), trio.Event(), list[int]()

        async def overflow() -> ModelResponse:
            await waited_for.wait()
            raise ContextOverflow("too long", code="ContextOverflow", retryable=False)

        script = Script(overflow, line, line)
        components["ag"] = agent(script)
        await set_up(tree)
        ids = [await tree.pending(text="word " * 300) for _ in range(2)]
        await fund(tree, *ids, budget_tokens=100)

        async with trio.open_nursery() as nursery:
            for execution_id in ids:
                nursery.start_soon(tree.run_stored, execution_id)
            await until(lambda: len(script.requests) == 1)
            await trio.sleep(5)
            waited_for.set()
            for number in (1, 2):
                await until(lambda number=number: line.begun == number)
                begun.append(line.begun)
                line.answer()

        assert begun == [1, 2]
        assert [await tree.status(one) for one in ids] == ["completed"] * 2

    async def test_what_a_call_used_is_stored_later_if_it_could_not_be_at_first(
        self, tree: Tree, components: Components
    ) -> None:
        """A save that was cancelled leaves nothing reserved for ever."""

        async def interrupted(call: NodeCall) -> Outcome:
            assert call.run is not None
            run, purse = call.run, call.run.purse
            wanted = Estimate(model="gpt-4o", tokens=120, micros=1)
            purse.settle(await purse.reserve(wanted, run.alive), Usage(total_tokens=7))
            with trio.CancelScope() as scope:
                scope.cancel()
                await run.save({})
            assert await rows(tree) == [(120, 1, False)]
            await purse.reserve(wanted, run.alive)
            assert await rows(tree) == [(7, 0, True), (120, 1, False)]
            return Outcome(ports={})

        components["ag"] = interrupted
        await set_up(tree)
        (execution_id,) = await funded(tree, budget_tokens=100)

        await tree.run_stored(execution_id)

        assert await tree.status(execution_id) == "completed"


class TestWhatCounts:
    async def test_running_siblings_count_before_they_are_rolled_up(
        self, tree: Tree, components: Components
    ) -> None:
        """Also between their end and their roll-up, and once only after it."""
        components["ag"] = agent(Script(says("Done.")))
        components["hold"] = gate = Gate()
        await set_up(tree, *AGENT, "ag > hold")
        (execution_id,) = await funded(tree, budget_tokens=1000)
        account = partial(tree.store.read, lambda conn: budgets.load_account(conn, "ep-1"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.run_stored, execution_id)
            await gate.arrived.wait()
            running = await account()
            gate.open.set()
        ended = await account()
        async with open_kit() as kit:
            kit.spawn(lambda: RollUp(tree.store, tree.clock, Subjects())).tell(Look())
            await trio.sleep(1)
            rolled_up = await account()

        assert [one.used_tokens for one in (running, ended, rolled_up)] == [15, 15, 15]
        assert rolled_up.used_micros == 75

    async def test_an_epic_pays_for_the_descendants_of_its_tasks(self, tree: Tree) -> None:
        """The nearest task counts."""
        await tree.workflow("t > a")
        root, child, grandchild, stranger = [await tree.pending() for _ in range(4)]
        await tree.change(child, parent_execution_id=root)
        await tree.change(grandchild, parent_execution_id=child, total_tokens=7)
        await fund(tree, root, budget_tokens=100)

        def look(conn: Connection) -> Any:
            found = [budgets.find_epic(conn, one) for one in (root, grandchild, stranger)]
            return found, budgets.load_account(conn, "ep-1").used_tokens

        assert await tree.store.read(look) == (["ep-1", "ep-1", None], 7)


class TestAfterACrash:
    async def test_nothing_stays_reserved(
        self, store_url: URL, clock: MockClock, components: Components
    ) -> None:
        """The next server releases it; what ended calls used still counts."""
        line = Line()

        async def add(arguments: dict[str, Any], context: Any) -> str:
            await trio.lowlevel.checkpoint()
            return "3"

        script = Script(calls(ToolCall("c1", "calculator", {"a": 1})), line, line)
        components["ag"] = agent(script, {"calculator": add})
        async with open_tree(store_url, clock, components, grace=0.1) as tree:
            await add_people(tree.store)
            await set_up(tree, *AGENT, "calc tool> ag")
            (execution_id,) = await funded(tree, budget_tokens=120)
            tree.manager.tell(Start((execution_id,)))
            await until(lambda: line.open == 1)
            before = await rows(tree)
        leave_behind(store_url)

        async with open_tree(store_url, clock, components, epoch=2) as tree:
            await until(lambda: line.begun == 2)
            after = await rows(tree)
            line.answer()
            await tree.ended(execution_id)
            row = await tree.row(execution_id)
            left = await rows(tree)

        assert [one[0] for one in before] == [15, before[1][0]]
        assert [one[2] for one in before] == [True, False]
        assert after == before
        assert (row.status, row.total_tokens, left) == ("completed", 30, [])

"""Child executions: started once, waited for, told to their root, ended with their parent."""

from functools import partial
from typing import Any

import pytest
import trio
from sqlalchemy import URL, insert, select, update
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.actors.manager_messages import Start
from pipelit.engine.outcome import Outcome, Report, Usage
from pipelit.nodes.base import Component, NodeCall, NodeError
from pipelit.nodes.children import ChildBatch, ChildCall
from pipelit.nodes.confirmation import human_confirmation
from pipelit.nodes.loop import loop
from pipelit.nodes.subworkflow import subworkflow
from pipelit.store import schema
from pipelit.store.queries import children as children_queries
from pipelit.store.queries.executions import delete_ended
from tests.kit.flows import ADA, BOB, START, Gate, leave_behind
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]


class BoomError(Exception):
    """What a test plants."""


@pytest.fixture
def components() -> Components:
    """Nodes called `w` run other workflows."""
    return {"w": subworkflow, "w2": subworkflow}


async def family(tree: Tree, *edges: str, **config: Any) -> int:
    """Store a workflow `parent` whose node `w` runs the workflow `child`; return its id."""
    await tree.workflow("t > c", slug="child")
    own = {"w": {"target_workflow": "child", **config}}
    return await tree.workflow(*(edges or ("t > w",)), slug="parent", **own)


async def children_of(tree: Tree, execution_id: str) -> list[Any]:
    table = schema.executions
    wanted = select(table).where(table.c.parent_execution_id == execution_id)
    order = wanted.order_by(table.c.created_seq)
    return await tree.store.read(lambda conn: list(conn.execute(order)))


async def only_child(tree: Tree, execution_id: str) -> Any:
    (child,) = await children_of(tree, execution_id)
    return child


async def spend(call: NodeCall) -> Outcome:
    await trio.lowlevel.checkpoint()
    used = Usage(total_tokens=10, input_tokens=7, output_tokens=3, llm_calls=1, cost_micros=50)
    return Outcome(ports={"output": "spent"}, output="done", report=Report(usage=used))


class TestARun:
    async def test_gives_out_the_result_of_its_child(
        self, tree: Tree, components: Components
    ) -> None:
        components["c"] = spend
        parent_id = await tree.run(await family(tree))

        child = await only_child(tree, parent_id)
        (log,) = await tree.logs(parent_id, "w")
        assert log["output"] == {"output": {"output": "done"}, "text": "done"}
        assert log["metadata"] == {"child_execution_ids": [child.id]}
        assert child.status == "completed"
        assert (child.source, child.depth, child.parent_node_id) == ("workflow", 1, "w")
        assert child.root_execution_id == parent_id
        assert child.trigger_payload["text"] == "hi"
        assert child.trigger["source_workflow"] == "parent"
        assert child.trigger["parent_execution_id"] == parent_id

    async def test_tells_the_root_of_all_its_descendants(
        self, tree: Tree, components: Components
    ) -> None:
        """In one gapless sequence, live as stored; totals count them all."""
        components["c"] = spend
        await family(tree)
        top = {"w2": {"target_workflow": "parent"}}
        top_id = await tree.workflow("t > w2", slug="top", **top)
        root = await tree.pending(top_id)
        heard = tree.listen(f"execution:{root}")
        await tree.run_stored(root)
        await tree.settle()

        events = await tree.events(root)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [copy.seq for copy in heard] == [event.seq for event in events]
        told = [e.data for e in events if e.type == "child_node_status"]
        assert [(d["node_id"], d["status"]) for d in told] == [
            ("w", "pending"),
            ("w", "running"),
            ("w", "waiting"),
            ("c", "pending"),
            ("c", "running"),
            ("c", "success"),
            ("w", "success"),
        ]
        assert {(d["execution_id"], d["parent_node_id"], d["is_child_event"]) for d in told} == {
            (root, "w2", True)
        }
        middle = await only_child(tree, root)
        leaf = await only_child(tree, middle.id)
        assert {d["child_execution_id"] for d in told} == {middle.id, leaf.id}
        summary = events[-1].data["activity_summary"]
        assert (summary["child_count"], summary["total_steps"]) == (2, 3)
        assert (summary["total_tokens"], summary["llm_calls"]) == (10, 1)
        assert (await tree.row(root)).total_tokens == 0

    async def test_is_told_to_wait_with_the_start_of_its_child(self, tree: Tree) -> None:
        parent_id = await tree.run(await family(tree, "t > w", "w > b"))

        child = await only_child(tree, parent_id)
        (waiting,) = [
            e.data for e in await tree.events(parent_id) if e.data.get("status") == "waiting"
        ]
        assert (waiting["node_id"], waiting["child_execution_ids"]) == ("w", [child.id])
        own = [word for word in await tree.story(parent_id) if word != "child_node_status"]
        assert own == [
            "execution_started",
            "w pending",
            "w running",
            "w waiting",
            "w success",
            "b pending",
            "b running",
            "b success",
            "execution_completed",
        ]

    async def test_fails_with_its_child(self, tree: Tree, components: Components) -> None:
        """Once: the same child would fail again."""

        async def fail(call: NodeCall) -> Outcome:
            await trio.lowlevel.checkpoint()
            raise NodeError("no way", code="Odd", retryable=False)

        components["c"] = fail
        parent_id = await tree.run(await family(tree))

        row = await tree.row(parent_id)
        assert row.error_code == "ChildExecutionError"
        assert row.error_message == ("Node w failed: Child execution failed: Node c failed: no way")
        assert len(await children_of(tree, parent_id)) == 1
        assert len(await tree.logs(parent_id, "w")) == 1

    @pytest.mark.parametrize(
        ("config", "change", "message"),
        [
            ({"target_workflow": "nowhere"}, {}, "Target workflow not found: 'nowhere'"),
            ({"target_workflow": ""}, {}, "Target workflow not found: ''"),
            ({}, {"is_active": False}, "Target workflow 'child' is inactive"),
            ({}, {"owner_id": 2}, "Not allowed to call workflow 'child'"),
            (
                {"trigger_mode": "explicit"},
                {},
                "No workflow trigger in 'child' accepts calls from 'parent'",
            ),
        ],
    )
    async def test_names_what_may_not_be_called(
        self, tree: Tree, config: dict[str, Any], change: dict[str, Any], message: str
    ) -> None:
        """And starts nothing."""
        workflow_id = await family(tree, **config)
        if change:
            changed = update(schema.workflows).where(schema.workflows.c.slug == "child")
            await tree.store.write(lambda conn: conn.execute(changed.values(**change)).rowcount)
        parent_id = await tree.run(workflow_id)

        row = await tree.row(parent_id)
        assert (row.error_code, row.error_message) == ("ConfigError", f"Node w failed: {message}")
        assert await children_of(tree, parent_id) == []

    async def test_calls_itself_ten_times_at_most(self, tree: Tree) -> None:
        loop = {"w": {"target_workflow": "parent"}}
        workflow_id = await tree.workflow("t > w", slug="parent", **loop)
        parent_id = await tree.run(workflow_id)

        deepest = select(schema.executions).order_by(schema.executions.c.depth.desc()).limit(1)
        row = await tree.store.read(lambda conn: conn.execute(deepest).one())
        assert row.depth == 10
        assert row.error_message == "Node w failed: Subworkflow nesting limit reached (10)"
        assert await tree.status(parent_id) == "failed"

    async def test_has_no_more_descendants_at_once_than_its_root_may(
        self, tree: Tree, components: Components, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The whole family counts, whoever starts the child; those that have ended do not."""
        monkeypatch.setattr(children_queries, "MAX_LIVE_DESCENDANTS", 2)
        components["c"] = gate = Gate()
        await tree.workflow("t > c", slug="child")
        both = {name: {"target_workflow": "child"} for name in ("w", "w2")}
        await tree.workflow("t > w", "w > w2", slug="parent", **both)
        top = {name: {"target_workflow": "parent"} for name in ("w", "w2")}
        top_id = await tree.workflow("t > w", "w > w2", slug="top", **top)
        root = await tree.start(top_id)
        await gate.arrived.wait()
        middle = await only_child(tree, root)
        gate.open.set()
        await tree.ended(root)
        assert await tree.status(root) == "completed"
        assert len(await children_of(tree, middle.id)) == 2

        monkeypatch.setattr(children_queries, "MAX_LIVE_DESCENDANTS", 1)
        refused = await tree.run(top_id)

        message = "Too many running child executions (limit 1)"
        child = await only_child(tree, refused)
        assert child.error_message == f"Node w failed: {message}"
        assert await children_of(tree, child.id) == []

    async def test_of_an_error_handler_lets_no_descendant_start_handlers(
        self, tree: Tree, components: Components
    ) -> None:
        """Else a child that fails, and is handled by what calls it, would go on for ever."""

        async def fail(call: NodeCall) -> Outcome:
            await trio.lowlevel.checkpoint()
            raise NodeError("no way", code="Odd", retryable=False)

        components["c"] = fail
        workflow_id = await family(tree)
        handler = update(schema.workflows).values(error_handler_workflow_id=workflow_id)
        child = handler.where(schema.workflows.c.slug == "child")
        await tree.store.write(lambda conn: conn.execute(child).rowcount)
        await tree.run(1)
        await trio.sleep(100.0)

        table = schema.executions
        sources = await tree.store.read(
            lambda conn: list(conn.scalars(select(table.c.source).order_by(table.c.created_seq)))
        )
        assert sources == ["manual", "error", "workflow"]


class TestInALoop:
    async def test_each_item_has_a_child_of_its_own_over_a_crash(
        self, tree: Tree, components: Components
    ) -> None:
        """The results come in the order of the items."""
        gate = Gate()

        async def items(call: NodeCall) -> Outcome:
            await trio.lowlevel.checkpoint()
            return Outcome(ports={"output": ["x", "y"]})

        async def shout(call: NodeCall) -> Outcome:
            await gate(call)
            text = call.state["trigger"]["payload"]["item"].upper()
            return Outcome(ports={"output": text}, output=text)

        components.update(a=items, c=shout, loop=partial(loop, max_iterations=10))
        await tree.workflow("t > c", slug="child")
        own: dict[str, dict[str, Any]] = {
            "l": {"source_node": "a", "field": "output"},
            "w": {"target_workflow": "child", "input_mapping": {"item": "loop.item"}},
        }
        edges = ("t > a", "a > l", "l loop_body> w", "w loop_return> l")
        parent_id = await tree.start(await tree.workflow(*edges, slug="parent", **own))
        await gate.arrived.wait()
        tree.faults.crash_next(paths.execution(parent_id), BoomError())
        gate.open.set()
        await tree.ended(parent_id)

        assert await tree.status(parent_id) == "completed"
        children = await children_of(tree, parent_id)
        assert [child.dedupe_key for child in children] == [
            f"{parent_id}:w:0",
            f"{parent_id}:w:1",
        ]
        (row,) = await tree.logs(parent_id, "l")
        assert [result["w"]["text"] for result in row["output"]["results"]] == ["X", "Y"]


class TestWaiting:
    async def test_needs_no_slot_for_the_children(self, store_url: URL, clock: MockClock) -> None:
        """All slots may be taken by parents."""
        async with open_tree(store_url, clock, {"w": subworkflow}, max_running=1) as tree:
            await add_people(tree.store)
            workflow_id = await family(tree)
            parents = [await tree.pending(workflow_id) for _ in range(3)]
            tree.manager.tell(Start(tuple(parents)))
            await tree.ended(parents[-1])

            assert [await tree.status(p) for p in parents] == ["completed"] * 3

    async def test_leaves_its_slots_to_others(
        self, store_url: URL, clock: MockClock, components: Components
    ) -> None:
        """Two may run: a parent whose child works, and somebody else."""
        components["c"] = gate = Gate()
        async with open_tree(store_url, clock, components, max_running=2) as tree:
            await add_people(tree.store)
            await tree.start(await family(tree))
            await gate.arrived.wait()

            other = await tree.start(await tree.workflow("t > b", slug="other"))
            await tree.ended(other)

            assert await tree.status(other) == "completed"

    async def test_takes_no_place_among_the_nodes_that_run(
        self, store_url: URL, clock: MockClock
    ) -> None:
        gate = Gate()
        nodes: Components = {"w": subworkflow, "c": gate}
        async with open_tree(store_url, clock, nodes, max_parallel=1) as tree:
            await add_people(tree.store)
            parent_id = await tree.start(await family(tree, "t > w", "t > b"))
            await gate.arrived.wait()
            await trio.sleep(1.0)

            assert "b success" in await tree.story(parent_id)
            gate.open.set()
            await tree.ended(parent_id)
            assert await tree.status(parent_id) == "completed"

    async def test_outlasts_the_time_that_a_node_may_run(
        self, tree: Tree, components: Components
    ) -> None:
        async def slow(call: NodeCall) -> Outcome:
            await trio.sleep(500.0)
            return Outcome(ports={})

        components["c"] = slow
        parent_id = await tree.run(await family(tree, node_timeout_seconds=1))

        assert await tree.status(parent_id) == "completed"

    async def test_ends_when_the_time_of_the_child_is_over(
        self, tree: Tree, components: Components
    ) -> None:
        components["c"] = Gate()
        parent_id = await tree.run(await family(tree, timeout_seconds=7))

        row = await tree.row(parent_id)
        assert row.error_message == "Node w failed: Child execution timed out"
        assert (row.completed_at - row.started_at).total_seconds() == pytest.approx(7.0, abs=0.5)
        assert (await only_child(tree, parent_id)).status == "cancelled"

    async def test_ends_with_the_time_of_the_parent(
        self, tree: Tree, components: Components
    ) -> None:
        """The child's own is a second longer, so that it is the parent that ends both."""
        components["c"] = Gate()
        parent_id = await tree.run(await family(tree), limit=20)

        child = await only_child(tree, parent_id)
        assert (await tree.row(parent_id)).error_code == "ExecutionTimeoutError"
        assert (child.status, child.limit_seconds) == ("cancelled", 21)

    async def test_lasts_as_long_as_the_child_waits_for_an_answer(self, tree: Tree) -> None:
        """The parent keeps running."""
        workflow_id = await family(tree)
        await tree.flag("c", before=True)
        parent_id = await tree.start(workflow_id)
        await trio.sleep(1.0)
        child_id = (await only_child(tree, parent_id)).id
        await tree.interrupted(child_id)
        assert await tree.status(parent_id) == "running"

        await tree.answer(child_id, "yes")
        await tree.ended(parent_id)

        assert await tree.status(parent_id) == "completed"

    async def test_lasts_as_long_as_a_confirmation_in_the_child(
        self, tree: Tree, components: Components
    ) -> None:
        """What the person says goes on from there; the parent gets what the child makes of it."""
        components["q"] = human_confirmation
        await tree.workflow("t > q", slug="asks", q={"on_reject": "continue"})
        parent = {"w": {"target_workflow": "asks"}}
        parent_id = await tree.start(await tree.workflow("t > w", slug="parent", **parent))
        await trio.sleep(1.0)
        child_id = (await only_child(tree, parent_id)).id
        question = await tree.interrupted(child_id)

        await tree.answer(child_id, "yes", question.task_id)
        await tree.ended(parent_id)

        assert await tree.status(parent_id) == "completed"
        (log,) = await tree.logs(child_id, "q")
        assert log["output"]["confirmed"] is True
        assert len(await children_of(tree, parent_id)) == 1

    async def test_does_not_hold_up_a_stop(self, store_url: URL, clock: MockClock) -> None:
        """And taking it up again is no recovery."""
        gate = Gate()
        nodes: Components = {"w": subworkflow, "c": gate}
        async with open_tree(store_url, clock, nodes, grace=60.0) as tree:
            await add_people(tree.store)
            parent_id = await tree.start(await family(tree))
            await gate.arrived.wait()
            gate.open.set()
        async with open_tree(store_url, clock, nodes, epoch=2) as tree:
            await tree.ended(parent_id)
            assert await tree.status(parent_id) == "completed"
            assert len(await children_of(tree, parent_id)) == 1


class TestCancelling:
    async def test_reaches_all_descendants_first(self, tree: Tree, components: Components) -> None:
        components["c"] = gate = Gate()
        await family(tree)
        top = {"w2": {"target_workflow": "parent"}}
        root = await tree.start(await tree.workflow("t > w2", slug="top", **top))
        await gate.arrived.wait()
        await tree.cancel(root)

        middle = await only_child(tree, root)
        leaf = await only_child(tree, middle.id)
        assert [await tree.status(e) for e in (root, middle.id, leaf.id)] == ["cancelled"] * 3
        ends = [(await tree.row(e)).completed_at for e in (leaf.id, middle.id, root)]
        assert ends == sorted(ends)
        events = await tree.events(root)
        assert events[-1].type == "execution_cancelled"
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        (log,) = await tree.logs(root, "w2")
        assert (log["error_code"], log["error"]) == ("Cancelled", "Execution cancelled")
        assert log["metadata"] == {"child_execution_ids": [middle.id]}

    async def test_of_a_child_fails_its_parent(self, tree: Tree, components: Components) -> None:
        components["c"] = gate = Gate()
        parent_id = await tree.start(await family(tree))
        await gate.arrived.wait()
        await tree.cancel((await only_child(tree, parent_id)).id)
        await tree.ended(parent_id)

        row = await tree.row(parent_id)
        assert row.error_message == "Node w failed: Child execution was cancelled"

    async def test_follows_the_failure_of_another_branch(
        self, tree: Tree, components: Components
    ) -> None:
        """The parent fails; its children are cancelled."""

        async def fail_later(call: NodeCall) -> Outcome:
            await trio.sleep(5.0)
            raise NodeError("no", code="Odd", retryable=False)

        components["c"], components["b"] = Gate(), fail_later
        parent_id = await tree.run(await family(tree, "t > w", "t > b"))

        assert (await tree.row(parent_id)).error_code == "Odd"
        assert (await only_child(tree, parent_id)).status == "cancelled"

    @pytest.mark.parametrize("stop_at", [4.5, 5.5])
    async def test_is_not_forgotten_by_a_server_that_stops(
        self, store_url: URL, clock: MockClock, stop_at: float
    ) -> None:
        """While the children are being cancelled no node runs, yet there is an end to write."""
        calls: list[str] = []

        async def fail_later(call: NodeCall) -> Outcome:
            calls.append(call.node.node_id)
            await trio.sleep(5.0)
            raise NodeError("no", code="Odd", retryable=False)

        async def slow_to_stop(call: NodeCall) -> Outcome:
            with trio.CancelScope(shield=True):
                await trio.sleep(6.0)
            return Outcome(ports={})

        nodes: Components = {"w": subworkflow, "c": slow_to_stop, "b": fail_later}
        async with open_tree(store_url, clock, nodes, grace=60.0) as tree:
            await add_people(tree.store)
            parent_id = await tree.start(await family(tree, "t > w", "t > b"))
            await trio.sleep(stop_at)
            assert await tree.status(parent_id) == "running"
            stopping = trio.current_time()
        assert trio.current_time() - stopping < 5.0
        async with open_tree(store_url, clock, nodes, epoch=2) as tree:
            await tree.ended(parent_id)

            row = await tree.row(parent_id)
            assert (row.status, row.error_code, calls) == ("failed", "Odd", ["b"])
            assert (await only_child(tree, parent_id)).status == "cancelled"


class TestAfterACrash:
    async def test_of_the_parents_actor_the_same_child_is_waited_for(
        self, tree: Tree, components: Components
    ) -> None:
        components["c"] = gate = Gate()
        parent_id = await tree.start(await family(tree))
        await gate.arrived.wait()
        tree.faults.crash_next(paths.execution(parent_id), BoomError())
        gate.open.set()
        await tree.ended(parent_id)

        assert await tree.status(parent_id) == "completed"
        assert len(await children_of(tree, parent_id)) == 1
        assert len(gate.calls) == 1
        own = [word for word in await tree.story(parent_id) if word != "child_node_status"]
        assert len(own) == len(set(own))

    @pytest.mark.parametrize("child_ends_meanwhile", [False, True])
    async def test_of_the_server_parent_and_child_go_on(
        self, store_url: URL, clock: MockClock, child_ends_meanwhile: bool
    ) -> None:
        """The parent only waited, so it did not crash the server."""
        gate = Gate()
        nodes: Components = {"w": subworkflow, "c": gate}
        async with open_tree(store_url, clock, nodes, grace=0.1) as tree:
            await add_people(tree.store)
            parent_id = await tree.start(await family(tree))
            await gate.arrived.wait()
            child_id = (await only_child(tree, parent_id)).id
            await trio.sleep(0.5)
        leave_behind(store_url)
        gate.open.set()
        async with open_tree(store_url, clock, nodes, epoch=2) as tree:
            if child_ends_meanwhile:
                await tree.ended(child_id)
            await tree.ended(parent_id)

            assert await tree.status(parent_id) == "completed"
            assert (await only_child(tree, parent_id)).id == child_id
            counts = {
                str(r.detail["execution_id"]): r.detail["recovery_count"]
                for r in tree.system.records(event="recovered")
            }
            assert counts == {parent_id: 0, child_id: 1}
            details = [r.detail for r in tree.system.records(event="recovered")]
            assert {(d["from_status"], d["previous_owner"]) for d in details} == {
                ("running", "server")
            }

    async def test_only_a_child_that_is_gone_is_started_again(
        self, store_url: URL, clock: MockClock
    ) -> None:
        """One that was deleted while the other ran."""
        gate, ends = Gate(), list[Any]()

        async def both(call: NodeCall) -> Outcome:
            assert call.run is not None
            calls = tuple(ChildCall(target=slug, payload={}) for slug in ("quick", "slow"))
            batch = ChildBatch(key=call.identity.idempotency_key, calls=calls)
            ends.extend(await call.run.run_children(batch, lambda ids: []))
            return Outcome(ports={})

        nodes: Components = {"w": both, "c": gate}
        async with open_tree(store_url, clock, nodes, grace=0.1) as tree:
            await add_people(tree.store)
            await tree.workflow("t > a", slug="quick")
            await tree.workflow("t > c", slug="slow")
            parent_id = await tree.start(await tree.workflow("t > w", slug="parent"))
            await gate.arrived.wait()
            quick, slow = await children_of(tree, parent_id)
            await tree.ended(quick.id)
            await tree.store.write(lambda conn: delete_ended(conn, [quick.id]))
        leave_behind(store_url)
        gate.open.set()
        async with open_tree(store_url, clock, nodes, epoch=2) as tree:
            await tree.ended(parent_id)
            assert await tree.status(parent_id) == "completed"

        first, second = ends
        assert (first.error, second.error, second.execution_id) == (None, None, slow.id)
        assert first.execution_id != quick.id

    async def test_they_go_on_when_no_slot_is_free(self, store_url: URL, clock: MockClock) -> None:
        """Taking up waits for no slot, and a child never does."""
        gate = Gate()
        nodes: Components = {"w": subworkflow, "c": gate}
        async with open_tree(store_url, clock, nodes, grace=0.1) as tree:
            await add_people(tree.store)
            parent_id = await tree.start(await family(tree))
            await gate.arrived.wait()
            child_id = (await only_child(tree, parent_id)).id
        gate.open.set()
        async with open_tree(store_url, clock, nodes, epoch=2, max_running=0) as tree:
            await tree.ended(child_id)
            await tree.ended(parent_id)
            assert await tree.status(parent_id) == "completed"


async def work_on_task(call: NodeCall) -> Outcome:
    """Spawn a child for the task `tk-1`."""
    assert call.run is not None
    batch = ChildBatch(
        key=call.identity.idempotency_key,
        calls=(ChildCall(target="child", payload={"text": "x"}, task_id="tk-1"),),
        spawned=True,
    )
    await call.run.run_children(batch, lambda _: ())
    return Outcome(ports={})


async def add_task(tree: Tree, user_id: int) -> None:
    """Add the task `tk-1` to an epic of a user."""
    same = {"title": "T", "tags": [], "created_at": START, "updated_at": START}
    task = {"id": "tk-1", "epic_id": "ep-1", "depends_on": [], "notes": []} | same

    def prepare(conn: Any) -> None:
        conn.execute(insert(schema.epics).values(id="ep-1", user_id=user_id, **same))
        conn.execute(insert(schema.tasks).values(**task))

    await tree.store.write(prepare)


class TestATask:
    async def test_is_linked_to_the_child_that_works_on_it(
        self, tree: Tree, components: Components
    ) -> None:
        """It runs until its execution ends."""
        await add_task(tree, ADA)
        components["w"], components["c"] = work_on_task, (gate := Gate())
        parent_id = await tree.start(await family(tree))
        await gate.arrived.wait()

        row = await tree.store.read(lambda conn: conn.execute(select(schema.tasks)).one())
        child = await only_child(tree, parent_id)
        assert (row.execution_id, row.status) == (child.id, "running")
        assert row.workflow_id == child.workflow_id
        assert row.started_at is not None

    async def test_of_other_people_is_not_there(self, tree: Tree, components: Components) -> None:
        """Its epic's budget is not the caller's to use: nothing starts."""
        await add_task(tree, BOB)
        components["w"] = work_on_task

        parent_id = await tree.run(await family(tree))

        (log,) = await tree.logs(parent_id, "w")
        assert (log["error"], log["error_code"]) == ("Task not found: 'tk-1'", "ConfigError")
        assert await children_of(tree, parent_id) == []

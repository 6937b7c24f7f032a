"""Who hears what: channels, rights at delivery, order, and a hub that never fails a publisher."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
import trio
from sqlalchemy import URL, update
from trio.testing import MockClock

from pipelit.actors import paths
from pipelit.actors.hub import Announcement, Audience, Copy, Publisher, Subscription
from pipelit.nodes.base import Component
from pipelit.store import schema
from pipelit.store.errors import StorageUnavailable
from tests.kit.flows import ADA, BOB, Gate
from tests.kit.tree import Reader, Tree, add_people, open_tree

Components = dict[str, Component]
EVE = 3


def publisher(tree: Tree) -> Publisher:
    return Publisher(tree.system.ref(paths.HUB))


def bodies(heard: list[Copy]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(copy.json) for copy in heard]


def announcement(seq: int | None = 1, kind: str = "node_status") -> Announcement:
    return Announcement("e1", Audience(1, "flow", ADA, BOB), kind, {"n": seq}, seq=seq)


class TestExecutionEvents:
    async def test_each_event_comes_once_per_channel_in_order(self, tree: Tree) -> None:
        """With the same number, time and data; only the channel differs."""
        await tree.workflow("t > a", "a > b")
        both = tree.listen("workflow:flow")
        execution_id = await tree.pending()
        own = tree.listen(f"execution:{execution_id}")

        await tree.run_stored(execution_id)
        await tree.settle()

        stored = await tree.events(execution_id)
        assert [copy.seq for copy in own] == [event.seq for event in stored]
        mine, theirs = bodies(own), bodies(both)
        assert {body.pop("channel") for body in mine} == {f"execution:{execution_id}"}
        assert {body.pop("channel") for body in theirs} == {"workflow:flow"}
        assert mine == theirs
        assert [body["timestamp"] for body in mine] == [event.timestamp for event in stored]
        assert {body["execution_id"] for body in mine} == {execution_id}

    async def test_numbers_never_go_back(self, tree: Tree, components: Components) -> None:
        """Also when many nodes end at once."""
        await tree.workflow(*(f"t > n{number}" for number in range(10)))
        heard = tree.listen("workflow:flow")

        await tree.run()
        await tree.settle()

        numbers = [copy.seq for copy in heard]
        assert all(after == before + 1 for before, after in pairwise(numbers))  # type: ignore[operator]

    async def test_only_who_may_see_the_execution_hears_it(self, tree: Tree) -> None:
        """The workflow's owner, the execution's user, who acts for one of them, admins."""
        readers = {
            "owner": Reader(ADA),
            "user": Reader(BOB),
            "agent": Reader(9, acts_for=BOB),
            "admin": Reader(EVE, is_admin=True),
            "stranger": Reader(EVE),
        }
        heard = {name: tree.listen("execution:e1", who) for name, who in readers.items()}

        publisher(tree).announce(announcement())
        await tree.settle()

        assert {name for name, copies in heard.items() if copies} == set(readers) - {"stranger"}

    async def test_rights_count_when_the_event_comes(self, tree: Tree) -> None:
        """A subscription is no promise."""
        reader = Reader(EVE)
        heard = tree.listen("execution:e1", reader)

        publisher(tree).announce(announcement(1))
        await tree.settle()
        reader.is_admin = True
        publisher(tree).announce(announcement(2))
        await tree.settle()

        assert [copy.seq for copy in heard] == [2]

    async def test_pieces_of_an_answer_go_to_the_execution_only(self, tree: Tree) -> None:
        """And have no number."""
        own, all_of_it = tree.listen("execution:e1"), tree.listen("workflow:flow")

        publisher(tree).announce(announcement(None, "chat_delta"))
        await tree.settle()

        assert all_of_it == []
        assert "seq" not in bodies(own)[0]

    async def test_a_pending_execution_that_is_cancelled_is_announced(self, tree: Tree) -> None:
        """Though no actor ever ran it."""
        await tree.workflow("t > a")
        heard = tree.listen("workflow:flow")
        execution_id = await tree.pending()

        await tree.cancel(execution_id)
        await tree.settle()

        assert [(copy.type, copy.seq) for copy in heard] == [("execution_cancelled", 1)]


class TestCanvasEvents:
    async def test_who_may_read_the_workflow_hears_its_canvas(self, tree: Tree) -> None:
        """A stranger does as soon as it is public."""
        await tree.workflow("t > a")
        owner = tree.listen("workflow:flow", Reader(ADA))
        stranger = tree.listen("workflow:flow", Reader(EVE))

        publisher(tree).publish("workflow:flow", "node_created", {"n": 1})
        await tree.settle()
        await change_workflow(tree, is_public=True)
        publisher(tree).publish("workflow:flow", "node_created", {"n": 2})
        await tree.settle()

        assert [body["data"]["n"] for body in bodies(owner)] == [1, 2]
        assert [body["data"]["n"] for body in bodies(stranger)] == [2]
        assert "seq" not in bodies(owner)[0]
        assert "execution_id" not in bodies(owner)[0]

    async def test_they_come_in_the_order_they_happened(self, tree: Tree) -> None:
        """However long each look-up takes."""
        await tree.workflow("t > a")
        heard = tree.listen("workflow:flow")

        for number in range(20):
            publisher(tree).publish("workflow:flow", "edge_deleted", {"id": number})
        await tree.settle()

        assert [body["data"]["id"] for body in bodies(heard)] == list(range(20))

    async def test_the_old_channel_hears_of_a_rename(self, tree: Tree) -> None:
        """By then no living workflow has that slug; the id in the event names it."""
        await tree.workflow("t > a")
        heard = tree.listen("workflow:flow", Reader(ADA))
        await change_workflow(tree, slug="renamed")

        publisher(tree).publish("workflow:flow", "workflow_updated", {"id": 1, "slug": "renamed"})
        publisher(tree).publish("workflow:flow", "node_created", {"n": 1})
        await tree.settle()

        assert [copy.type for copy in heard] == ["workflow_updated"]

    async def test_its_owner_hears_of_a_deletion(self, tree: Tree) -> None:
        """And nobody else does."""
        await tree.workflow("t > a")
        owner = tree.listen("workflow:flow", Reader(ADA))
        stranger = tree.listen("workflow:flow", Reader(EVE))
        await change_workflow(tree, deleted_at=tree.clock.now())

        publisher(tree).publish("workflow:flow", "workflow_deleted", {"id": 1, "slug": "flow"})
        await tree.settle()

        assert [copy.type for copy in owner] == ["workflow_deleted"]
        assert stranger == []

    async def test_events_of_an_epic_are_for_every_user(self, tree: Tree) -> None:
        """Epics are shared."""
        heard = tree.listen("epic:ep-1", Reader(EVE))

        publisher(tree).publish("epic:ep-1", "epic_updated", {"id": "ep-1"})
        await tree.settle()

        assert [copy.type for copy in heard] == ["epic_updated"]


async def test_a_database_that_does_not_answer_costs_canvas_events_only(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub lives on: events of executions need no look-up."""
    await tree.workflow("t > a")
    heard = tree.listen("workflow:flow")

    async def refuse(query, *, timeout=None):
        raise StorageUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(tree.store, "read", refuse)
        for _ in range(10):
            publisher(tree).publish("workflow:flow", "node_created", {"n": 1})
        publisher(tree).announce(announcement())
        await tree.settle()
    publisher(tree).publish("workflow:flow", "node_created", {"n": 2})
    await tree.settle()

    assert [copy.type for copy in heard] == ["node_status", "node_created"]
    assert tree.system.records(event="actor_crashed") == ()


async def test_who_left_hears_nothing_more(tree: Tree) -> None:
    """A reader that subscribes twice is told once."""
    heard: list[Copy] = []
    subscription = Subscription(Reader(ADA), heard.append)
    tree.board.subscribe(subscription, "execution:e1")
    tree.board.subscribe(subscription, "execution:e1")

    publisher(tree).announce(announcement(1))
    await tree.settle()
    tree.board.leave(subscription)
    publisher(tree).announce(announcement(2))
    await tree.settle()

    assert [copy.seq for copy in heard] == [1]
    assert tree.board.readers("execution:e1") == ()


async def test_a_full_hub_never_fails_who_publishes(store_url: URL, clock: MockClock) -> None:
    """Live events are lost; the execution and its rows are not touched."""
    async with open_tree(store_url, clock, {}, hub_capacity=1) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a", "a > b")
        for number in range(50):
            publisher(tree).announce(announcement(number))

        execution_id = await tree.run()

        assert await tree.status(execution_id) == "completed"
        assert len(await tree.events(execution_id)) == 8


async def test_readers_outlive_a_crash_of_the_hub(tree: Tree, components: Components) -> None:
    """They hear what comes after it."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    heard = tree.listen("workflow:flow")
    execution_id = await tree.start()
    await gate.arrived.wait()
    tree.faults.crash_next(paths.HUB, RuntimeError("boom"))
    publisher(tree).announce(announcement())
    await trio.sleep(1.0)

    gate.open.set()
    await tree.gone(execution_id)
    await tree.settle()

    assert heard[-1].type == "execution_completed"


async def test_a_hub_that_is_back_tells_every_reader_once_to_catch_up(tree: Tree) -> None:
    """The event that it died of is lost, and no next one may come."""
    told: list[str] = []
    subscription = Subscription(Reader(ADA), lambda _: None, lambda: told.append("look"))
    for channel in ("execution:e1", "execution:e2"):
        tree.board.subscribe(subscription, channel)
    tree.faults.crash_next(paths.HUB, RuntimeError("boom"))

    publisher(tree).announce(announcement())
    await trio.sleep(1.0)
    await tree.settle()

    assert told == ["look"]


async def change_workflow(tree: Tree, **values: Any) -> None:
    statement = update(schema.workflows).values(**values)
    await tree.store.write(lambda conn: conn.execute(statement).rowcount)

"""A chat session: one run at a time, in order, from what is stored."""

import pytest
import trio
from sqlalchemy import URL, select
from trio.testing import MockClock

from pipelit.actors.chats import MAX_WAITING
from pipelit.engine.outcome import Outcome
from pipelit.errors import Unavailable
from pipelit.nodes.base import Component, NodeCall
from pipelit.store import schema
from pipelit.store.queries.executions import Idempotency, KeyReused, Replay
from tests.kit.flows import Gate
from tests.kit.tree import Tree, add_people, open_tree

Components = dict[str, Component]


class Turns:
    """Takes a second each, and notes who ran and how many at once."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.running = self.most = 0

    async def __call__(self, call: NodeCall) -> Outcome:
        self.order.append(call.identity.execution_id)
        self.running += 1
        self.most = max(self.most, self.running)
        await trio.sleep(1.0)
        self.running -= 1
        return Outcome(ports={"output": "x"}, output="answer")


async def transcript(tree: Tree) -> list[tuple[str, str]]:
    wanted = select(schema.thread_messages.c.role, schema.thread_messages.c.message)
    rows = await tree.store.read(
        lambda conn: conn.execute(wanted.order_by(schema.thread_messages.c.position)).all()
    )
    return [(row.role, row.message["content"]) for row in rows]


async def test_messages_of_a_session_run_one_at_a_time_in_order(
    tree: Tree, components: Components
) -> None:
    """Later ones stay pending."""
    components["a"] = turns = Turns()
    await tree.workflow("t > a")

    ids = [(await tree.post(f"message {number}"))[0] for number in range(4)]
    await tree.ended(ids[-1])

    assert turns.order == ids
    assert turns.most == 1


async def test_a_text_reply_joins_the_transcript_when_its_run_completes(
    tree: Tree, components: Components
) -> None:
    """The user's message is there from the start."""
    components["a"] = Turns()
    await tree.workflow("t > a")

    execution_id, _ = await tree.post("question")
    assert await transcript(tree) == [("user", "question")]
    await tree.ended(execution_id)

    assert await transcript(tree) == [("user", "question"), ("assistant", "answer")]


async def test_a_failed_run_leaves_no_reply_and_does_not_hold_the_session(
    tree: Tree, components: Components
) -> None:
    """The next message has its turn."""

    async def hang(call: NodeCall) -> Outcome:
        await trio.sleep_forever()
        raise AssertionError

    components["a"] = hang
    await tree.workflow("t > a")

    first, _ = await tree.post("first")
    second, _ = await tree.post("second")
    await tree.ended(second)

    assert [await tree.status(e) for e in (first, second)] == ["failed", "failed"]
    assert [role for role, _ in await transcript(tree)] == ["user", "user"]


async def test_a_cancelled_message_is_passed_by(tree: Tree, components: Components) -> None:
    """Whether it was running or still waiting."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    first, _ = await tree.post("first")
    second, _ = await tree.post("second")
    third, _ = await tree.post("third")
    await gate.arrived.wait()

    await tree.cancel(second)
    await tree.cancel(first)
    gate.open.set()
    await tree.ended(third)

    assert [await tree.status(e) for e in (first, second, third)] == [
        "cancelled",
        "cancelled",
        "completed",
    ]
    assert len(gate.calls) == 2


async def test_at_most_fifty_messages_wait(tree: Tree, components: Components) -> None:
    """The next is refused, and nothing of it is stored."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    for number in range(1 + MAX_WAITING):
        await tree.post(str(number))

    with pytest.raises(Unavailable, match=r"^Failed to enqueue workflow execution\.$"):
        await tree.post("one too many")

    assert len(await transcript(tree)) == 51
    gate.open.set()


async def test_cancelled_messages_do_not_fill_the_queue(tree: Tree, components: Components) -> None:
    """Only those that still wait count."""
    components["a"] = gate = Gate()
    await tree.workflow("t > a")
    ids = [(await tree.post(str(number)))[0] for number in range(1 + MAX_WAITING)]

    await tree.cancel(ids[-1])
    execution_id, _ = await tree.post("in its place")
    gate.open.set()
    await tree.ended(execution_id)

    assert await tree.status(execution_id) == "completed"


async def test_a_repeated_request_gets_its_first_response(
    tree: Tree, components: Components
) -> None:
    """And adds neither a message nor a run."""
    components["a"] = turns = Turns()
    await tree.workflow("t > a")
    request = Idempotency(key="k", fingerprint="f", status=200, body={"first": True})

    first, answer = await tree.post("hi", idempotency=request)
    assert answer is None
    _, again = await tree.post("hi", idempotency=request)
    await tree.ended(first)
    await tree.settle()

    assert again == Replay(200, {"first": True})
    assert turns.order == [first]
    assert [role for role, _ in await transcript(tree)] == ["user", "assistant"]


async def test_a_key_of_another_request_is_refused(tree: Tree) -> None:
    """The session goes on."""
    await tree.workflow("t > a")
    await tree.post("hi", idempotency=Idempotency(key="k", fingerprint="f", status=200, body={}))

    with pytest.raises(KeyReused):
        await tree.post(
            "ho", idempotency=Idempotency(key="k", fingerprint="g", status=200, body={})
        )

    execution_id, _ = await tree.post("still there")
    await tree.ended(execution_id)
    assert await tree.status(execution_id) == "completed"


async def test_a_session_goes_on_after_a_restart_in_its_order(
    store_url: URL, clock: MockClock
) -> None:
    """What ran first, then what waited."""
    turns = Turns()
    async with open_tree(store_url, clock, {"a": Gate()}, grace=0.1) as tree:
        await add_people(tree.store)
        await tree.workflow("t > a")
        ids = [(await tree.post(str(number)))[0] for number in range(3)]
        await trio.sleep(1.0)

    async with open_tree(store_url, clock, {"a": turns}, epoch=2) as tree:
        await tree.ended(ids[-1])

        assert turns.order == ids
        assert turns.most == 1


async def test_an_idle_session_is_forgotten_and_comes_back(
    tree: Tree, components: Components
) -> None:
    """Nobody can tell the difference; one that runs something is not idle."""
    components["a"] = turns = Turns()
    await tree.workflow("t > a")
    first, _ = await tree.post("first")
    await tree.ended(first)
    session = tree.session("2:1")

    await trio.sleep(1000.0)
    assert not session.is_alive()
    second, _ = await tree.post("second")
    await tree.ended(second)

    assert turns.order == [first, second]

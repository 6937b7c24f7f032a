"""Replies reach the chats they belong to, at least once. Contract: engine.md §10.6, §19."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
import trio
from sqlalchemy import Connection, select

from pipelit.actors.delivery import MAX_AT_ONCE, Delivery, Look, Say
from pipelit.actors.manager_messages import Run
from pipelit.actors.runtime.testing import open_kit
from pipelit.engine.outcome import Failure, Outcome
from pipelit.net.gateway import Gateway, GatewayError
from pipelit.nodes.base import Component, NodeCall
from pipelit.store import schema
from pipelit.store.queries import executions
from tests.kit.tree import Tree

CHAT = {"credential_id": "shop-bot", "chat_id": "5512"}


class FakeGateway:
    """Remembers what it is sent, and refuses or hangs when it is told to."""

    is_configured = True

    def __init__(self) -> None:
        self.refusals = 0
        self.hangs = False
        self.sent: list[tuple[str, str, str]] = []
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0

    async def send(self, credential_id: str, chat_id: str, text: str) -> None:
        self.times.append(round(trio.current_time()))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(math.inf if self.hangs else 0.1)
        finally:
            self.at_once -= 1
        if self.refusals:
            self.refusals -= 1
            raise GatewayError("Gateway API error 500: no", status=500)
        self.sent.append((credential_id, chat_id, text))

    @property
    def seconds_between(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


async def answer(call: NodeCall) -> Outcome:
    """Reply as `reply_chat` does."""
    await trio.lowlevel.checkpoint()
    return Outcome(ports={"output": "Paid."}, output="Paid.")


@pytest.fixture
def components() -> dict[str, Component]:
    """The only node replies."""
    return {"a": answer}


@pytest.fixture
def gateway() -> FakeGateway:
    """What the server takes for the gateway."""
    return FakeGateway()


@asynccontextmanager
async def delivering(tree: Tree, gateway: FakeGateway) -> AsyncIterator[Any]:
    """Deliver for the length of the block."""
    async with open_kit() as kit:
        yield kit.spawn(lambda: Delivery(tree.store, tree.clock, cast("Gateway", gateway)))


async def complete(tree: Tree, workflow_id: int, trigger: dict[str, Any], **more: Any) -> str:
    """Run an execution of this trigger to its end."""
    new = tree.new(workflow_id)
    new = msgspec.structs.replace(new, trigger={**new.trigger, **trigger}, **more)
    await tree.store.write(lambda conn: executions.create(conn, new))
    await tree.manager.ask(Run(new.id), timeout=1000)
    return new.id


async def dispatches(tree: Tree) -> list[tuple[str, bool, int]]:
    """Return what is stored of deliveries: execution, whether done, attempts."""

    def query(conn: Connection) -> list[tuple[str, bool, int]]:
        table = schema.dispatches
        rows = conn.execute(select(table.c.execution_id, table.c.done, table.c.attempts))
        return [(row.execution_id, row.done, row.attempts) for row in rows]

    return await tree.store.read(query)


async def test_a_completed_run_answers_the_chat_that_asked(
    tree: Tree, gateway: FakeGateway
) -> None:
    """Once, in the chat and through the credential of its trigger."""
    flow = await tree.workflow("t > a")

    async with delivering(tree, gateway) as delivery:
        execution_id = await complete(tree, flow, CHAT)
        delivery.tell(Look())
        await trio.sleep(100)

    assert gateway.sent == [("shop-bot", "5512", "Paid.")]
    assert await dispatches(tree) == [(execution_id, True, 1)]


async def test_a_numeric_chat_id_is_sent_as_text(tree: Tree, gateway: FakeGateway) -> None:
    """A Telegram trigger shows a number; the gateway gets what it gave."""
    flow = await tree.workflow("t > a")

    async with delivering(tree, gateway):
        await complete(tree, flow, {**CHAT, "chat_id": -1001})
        await trio.sleep(100)

    assert gateway.sent == [("shop-bot", "-1001", "Paid.")]


@pytest.mark.parametrize(
    ("trigger", "more"),
    [
        ({}, {}),
        ({"chat_id": "5512"}, {}),
        ({"credential_id": "shop-bot", "chat_id": ""}, {}),
        (CHAT, {"source": "workflow"}),
    ],
)
async def test_without_a_chat_nothing_is_to_be_sent(
    tree: Tree, gateway: FakeGateway, trigger: dict[str, Any], more: dict[str, Any]
) -> None:
    """Both ids are needed; children never deliver."""
    flow = await tree.workflow("t > a")

    await complete(tree, flow, trigger, **more)

    assert await dispatches(tree) == []


async def test_only_completed_runs_with_text_answer(
    tree: Tree, components: dict[str, Component]
) -> None:
    """A failed run and an empty reply send nothing."""

    async def fail(call: NodeCall) -> Outcome | Failure:
        await trio.lowlevel.checkpoint()
        return Failure(code="ConfigError", message="no", retryable=False)

    async def empty(call: NodeCall) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Outcome(output="")

    flow = await tree.workflow("t > a")

    for component in (fail, empty):
        components["a"] = component
        await complete(tree, flow, CHAT)

    assert await dispatches(tree) == []


async def test_a_refused_reply_is_sent_again_three_times(tree: Tree, gateway: FakeGateway) -> None:
    """After 1, 2 and 4 s; then it is given up, and the execution stays completed."""
    flow = await tree.workflow("t > a")
    gateway.refusals = 99

    async with delivering(tree, gateway) as delivery:
        execution_id = await complete(tree, flow, CHAT)
        delivery.tell(Look())
        await trio.sleep(200)

    assert gateway.seconds_between == [1, 2, 4]
    assert await dispatches(tree) == [(execution_id, True, 4)]
    assert await tree.status(execution_id) == "completed"


async def test_a_reply_that_is_taken_is_not_sent_again(tree: Tree, gateway: FakeGateway) -> None:
    """The second attempt succeeds."""
    flow = await tree.workflow("t > a")
    gateway.refusals = 1

    async with delivering(tree, gateway) as delivery:
        execution_id = await complete(tree, flow, CHAT)
        delivery.tell(Look())
        await trio.sleep(200)

    assert gateway.sent == [("shop-bot", "5512", "Paid.")]
    assert await dispatches(tree) == [(execution_id, True, 2)]


async def test_a_server_that_ends_in_between_sends_at_its_next_start(
    tree: Tree, gateway: FakeGateway
) -> None:
    """At least once: what was under way, and what nobody had looked at yet."""
    flow = await tree.workflow("t > a")
    gateway.hangs = True
    async with delivering(tree, gateway) as delivery:
        await complete(tree, flow, CHAT)
        delivery.tell(Look())
        await trio.sleep(5)
    await complete(tree, flow, CHAT)
    gateway.hangs = False

    async with delivering(tree, gateway):
        await trio.sleep(5)

    assert gateway.sent == [("shop-bot", "5512", "Paid.")] * 2
    assert {done for _, done, _ in await dispatches(tree)} == {True}


async def test_many_replies_go_out_a_few_at_once(tree: Tree, gateway: FakeGateway) -> None:
    """All of them, and never more than the limit at a time."""
    flow = await tree.workflow("t > a")
    for number in range(40):
        await complete(tree, flow, {**CHAT, "chat_id": str(number)})

    async with delivering(tree, gateway):
        await trio.sleep(20)

    assert gateway.most_at_once == MAX_AT_ONCE
    assert {chat for _, chat, _ in gateway.sent} == {str(number) for number in range(40)}


async def test_words_are_sent_once_and_best_effort(tree: Tree, gateway: FakeGateway) -> None:
    """A refusal is logged; nothing is stored and nothing crashes."""
    gateway.refusals = 1

    async with delivering(tree, gateway) as delivery:
        for text in ("one", "two"):
            delivery.tell(Say("shop-bot", "5512", text))
            await trio.sleep(5)
        assert delivery.is_alive()

    assert gateway.sent == [("shop-bot", "5512", "two")]
    assert await dispatches(tree) == []

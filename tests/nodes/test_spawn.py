"""What an agent may ask of `spawn_and_await`, and what it reads. Contract: node-types.md §8.7."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from pipelit.nodes.base import ToolContext, ToolError
from pipelit.nodes.children import ChildBatch, ChildEnd
from pipelit.nodes.spawn import MAX_TASKS, spawn_tools
from tests.nodes.calls import IDENTITY, FixedClock, node, services

ONE = {"workflow_slug": "research"}


class Platform:
    """Runs nothing: every child ends as the test says."""

    def __init__(self, ends: Sequence[ChildEnd]) -> None:
        self.ends = tuple(ends)
        self.batches: list[ChildBatch] = []

    async def run(self, batch: ChildBatch) -> tuple[ChildEnd, ...]:
        await trio.lowlevel.checkpoint()
        self.batches.append(batch)
        return self.ends


async def spawn(platform: Platform, **arguments: Any) -> str:
    (tool,) = spawn_tools(node("spawn_and_await"), {"extra_config": {}}, services())
    context = ToolContext(
        idempotency_key="e1:agent:0:call_1",
        clock=FixedClock(),
        caller=IDENTITY,
        run_children=platform.run,
    )
    return await tool.run(arguments, context)


def done(output: Any) -> ChildEnd:
    return ChildEnd(execution_id="c1", final_output=output)


FAILED = ChildEnd(execution_id="c2", error="Child execution was cancelled")


@pytest.mark.parametrize(
    ("output", "text"),
    [({"output": "…"}, '{"output":"…"}'), ("bare", "bare"), (None, "null")],
)
async def test_the_result_of_one_child_is_its_output(output: Any, text: str) -> None:
    platform = Platform([done(output)])

    assert await spawn(platform, workflow_slug="research", input_text="Trio") == text

    (batch,) = platform.batches
    assert (batch.key, batch.spawned, batch.timeout) == ("e1:agent:0:call_1", True, None)
    assert batch.calls[0].payload == {"text": "Trio", "payload": {}}


async def test_the_results_of_several_come_in_the_order_of_the_tasks() -> None:
    """A failed one is told among them."""
    platform = Platform([done({"output": 1}), FAILED])

    told = await spawn(platform, tasks=[ONE, {**ONE, "input_data": {"a": 1}, "task_id": "tk-1"}])

    assert told == '[{"output":1},{"_error":"Child execution was cancelled"}]'
    first, second = platform.batches[0].calls
    assert (first.task_id, second.task_id) == (None, "tk-1")
    assert second.payload == {"text": "", "payload": {"a": 1}}


async def test_one_that_fails_is_an_error_of_the_tool() -> None:
    with pytest.raises(ToolError, match="Spawn failed: Child execution was cancelled"):
        await spawn(Platform([FAILED]), **ONE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either workflow_slug or tasks"),
        ({**ONE, "tasks": [ONE]}, "give either workflow_slug or tasks"),
        ({"tasks": []}, "tasks list cannot be empty"),
        ({"tasks": [ONE] * (MAX_TASKS + 1)}, "tasks list cannot have more than 20 items"),
        ({"tasks": [ONE, "x"]}, "Task 1 must be a dict, got str"),
        ({"tasks": [{}]}, "Task 0 missing required field 'workflow_slug'"),
        ({"tasks": [{**ONE, "input_text": 3}]}, "Task 0: 'input_text' must be a string"),
    ],
)
async def test_says_what_is_wrong_with_a_call(arguments: dict[str, Any], message: str) -> None:
    """And starts nothing."""
    platform = Platform([])

    with pytest.raises(ToolError) as refused:
        await spawn(platform, **arguments)

    assert str(refused.value) == message
    assert platform.batches == []

"""An agent goes on after a failed attempt or a crash, and repeats nothing it has paid for."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pipelit.engine.messages import ToolCall
from pipelit.engine.outcome import Usage
from pipelit.llm.types import ProviderError
from pipelit.nodes.agent import AgentRun, Progress
from pipelit.nodes.base import RunEvent, ToolContext
from tests.nodes.agents import Port, Script, ToolBody, calls, run_agent, says

BUSY = ProviderError("busy", code="RateLimitError", retryable=True)
TWO = [ToolCall(f"c{n}", "add", {"a": n}) for n in (1, 2)]


def counting(made: list[int]) -> ToolBody:
    async def add(arguments: dict[str, Any], context: ToolContext) -> str:
        await trio.lowlevel.checkpoint()
        made.append(arguments["a"])
        return str(arguments["a"])

    return add


async def failed_attempt(script: Script, port: Port, **more: Any) -> Port:
    """Make an attempt that fails; return the port of the next one."""
    with pytest.raises(ProviderError):
        await run_agent(script, port, **more)
    used = port.reports[-1].usage or Usage()
    progress = port.last if port.saves else port.progress
    return Port(progress=progress, recorded=port.recorded + used)


async def test_a_retry_repeats_neither_answers_nor_tools() -> None:
    """It goes on with the results it has."""
    made: list[int] = []
    tools = {"add": counting(made)}
    port = await failed_attempt(Script(calls(*TWO), BUSY), Port(), tools=tools)
    script = Script(says("done"))

    outcome = await run_agent(script, port, tools=tools)

    assert sorted(made) == [1, 2]
    assert [text for role, text in script.texts() if role == "tool"] == ["1", "2"]
    assert outcome.ports["output"] == "done"


async def test_only_calls_without_a_result_are_made_again() -> None:
    """With the same key as before the crash."""
    made: list[int] = []
    first = Port()
    await run_agent(Script(calls(*TWO), says("x")), first, tools={"add": counting([])})
    both = first.saves[1][0]
    after_one_result = {**both, "results": {"c1": both["results"]["c1"]}}
    script = Script(says("done"))

    await run_agent(script, Port(progress=after_one_result), tools={"add": counting(made)})

    assert made == [2]
    assert [text for role, text in script.texts() if role == "tool"] == ["1", "2"]


async def test_nothing_is_announced_twice() -> None:
    """The text before the calls was heard already."""
    port = await failed_attempt(
        Script(calls(*TWO, text="Hm."), BUSY), Port(), tools={"add": counting([])}
    )

    outcome = await run_agent(Script(says("Hm.")), port, tools={"add": counting([])})

    assert port.told() == []
    assert outcome.spoken is None


async def test_model_calls_of_all_attempts_count_against_the_bound() -> None:
    """Those that were saved."""
    tools = {"add": counting([])}
    port = await failed_attempt(Script(calls(*TWO), BUSY), Port(), tools=tools)
    more = calls(ToolCall("c3", "add", {"a": 3}))

    with pytest.raises(Exception, match="Agent stopped after 2 iterations"):
        await run_agent(Script(more), port, tools=tools, max_iterations=2)


class TestUsage:
    async def test_an_attempt_reports_only_its_own(self) -> None:
        """What earlier ones used is in their rows; together they add up."""
        tools = {"add": counting([])}
        first = Port()
        port = await failed_attempt(Script(calls(*TWO), BUSY), first, tools=tools)

        outcome = await run_agent(Script(says("done")), port, tools=tools)

        assert first.reports[-1].usage == Usage(
            input_tokens=10,
            output_tokens=5,
            total_tokens=15,
            cost_micros=75,
            llm_calls=2,
            tool_invocations=2,
        )
        assert outcome.report.usage == Usage(
            input_tokens=10, output_tokens=5, total_tokens=15, cost_micros=75, llm_calls=1
        )

    async def test_attempts_that_saved_nothing_are_not_lost(self) -> None:
        """Each call that failed counts once, the answer too."""
        port = await failed_attempt(Script(BUSY), Port())
        port = await failed_attempt(Script(BUSY), port)

        outcome = await run_agent(Script(says("x")), port)

        assert port.recorded == Usage(llm_calls=2)
        assert outcome.report.usage == Usage(
            input_tokens=10, output_tokens=5, total_tokens=15, cost_micros=75, llm_calls=1
        )

    async def test_what_a_crashed_attempt_saved_is_reported_by_the_next(self) -> None:
        """It had no row of its own."""
        crashed = Port()
        tools = {"add": counting([])}
        await run_agent(Script(calls(*TWO), says("x")), crashed, tools=tools)

        outcome = await run_agent(
            Script(says("done")), Port(progress=crashed.saves[0][0]), tools=tools
        )

        assert outcome.report.usage is not None
        assert outcome.report.usage.llm_calls == 2
        assert outcome.report.usage.tool_invocations == 2


async def test_calls_of_later_answers_are_no_repetitions_of_earlier_ones() -> None:
    """Some providers number the calls of each answer anew; a tool's key must tell them apart."""
    keys: list[str] = []

    async def add(arguments: dict[str, Any], context: ToolContext) -> str:
        await trio.lowlevel.checkpoint()
        keys.append(context.idempotency_key)
        return "x"

    same = [ToolCall("call_0", "add", {"a": 1})]
    script = Script(calls(*same), calls(*same), calls(*same), says("done"))

    await run_agent(script, Port(), tools={"add": add})

    assert len(set(keys)) == 3


async def test_what_a_cancelled_save_was_to_tell_goes_with_the_next() -> None:
    """Parallel tools save together; the one that saves for all may be cut off."""
    port = StuckPort()
    run = AgentRun.__new__(AgentRun)
    run.port, run._saving, run._unsaved, run._is_saved = port, trio.Lock(), [], True
    run._progress = Progress(messages=())
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(save_in, scope, run, "cut off")
        await wait_all_tasks_blocked()
        nursery.start_soon(run.save, [RunEvent("waiting", {})])
        await wait_all_tasks_blocked()
        scope.cancel()

    assert port.told == ["cut off", "waiting"]


class StuckPort(Port):
    """Its first save never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    async def save(self, progress: Any, events: Any = ()) -> None:
        if not self.saves:
            self.saves.append((progress, []))
            await trio.sleep_forever()
        self.told += [event.type for event in events]


async def save_in(scope: trio.CancelScope, run: AgentRun, kind: str) -> None:
    with scope:
        await run.save([RunEvent(kind, {})])

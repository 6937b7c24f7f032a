"""An agent's tool calls: together, in order, and never the end of the node."""

from collections.abc import Sequence
from typing import Any

import trio
from trio.testing import MockClock

from pipelit.engine.messages import ToolCall
from pipelit.llm.types import InvalidToolCall
from pipelit.nodes.base import RunEvent, ToolContext, ToolError
from tests.nodes.agents import Port, Script, calls, message, run_agent, says

ADD = ToolCall("c1", "add", {"a": 1})


async def add(arguments: dict[str, Any], context: ToolContext) -> str:
    await trio.lowlevel.checkpoint()
    return str(arguments["a"] + arguments["b"])


def results(script: Script) -> list[str]:
    """Return what the model read as results before its last answer."""
    return [text for role, text in script.texts() if role == "tool"]


async def test_a_result_goes_back_to_the_model() -> None:
    """Defaults are filled in; the last text is the answer."""
    script = Script(calls(ADD), says("It is 2."))

    outcome = await run_agent(script, tools={"add": add})

    assert results(script) == ["2"]
    assert outcome.ports["output"] == "It is 2."
    assert [m["role"] for m in outcome.ports["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [m.text for m in outcome.messages] == ["It is 2."]
    assert outcome.report.usage is not None
    assert outcome.report.usage.tool_invocations == 1


async def test_calls_of_one_answer_run_together_and_results_keep_their_order(
    autojump_clock: MockClock,
) -> None:
    """However long each takes."""

    async def nap(arguments: dict[str, Any], context: ToolContext) -> str:
        await trio.sleep(arguments["a"])
        return f"slept {arguments['a']}"

    wanted = [ToolCall(f"c{n}", "nap", {"a": n}) for n in (3, 1, 2)]
    script, port = Script(calls(*wanted), says("done")), Port()

    await run_agent(script, port, tools={"nap": nap})

    assert trio.current_time() == 3
    assert results(script) == ["slept 3", "slept 1", "slept 2"]
    assert port.told() == ["nap running"] * 3 + ["nap success"] * 3


async def test_each_call_has_a_key_that_stays_the_same() -> None:
    """Of its execution, node, iteration and call."""
    keys = []

    async def note(arguments: dict[str, Any], context: ToolContext) -> str:
        await trio.lowlevel.checkpoint()
        keys.append(context.idempotency_key)
        return ""

    await run_agent(
        Script(calls(ToolCall("c1", "note", {"a": 1})), says("x")), tools={"note": note}
    )

    assert keys == ["e1:me:0:c1"]


class TestTrouble:
    async def test_a_tool_that_fails_is_read_by_the_model(self) -> None:
        """The node goes on."""

        async def fail(arguments: dict[str, Any], context: ToolContext) -> str:
            await trio.lowlevel.checkpoint()
            raise ToolError("no such file")

        script, port = Script(calls(ToolCall("c1", "fail", {"a": 1})), says("sorry")), Port()

        outcome = await run_agent(script, port, tools={"fail": fail})

        assert results(script) == ["Error: no such file"]
        assert outcome.ports["output"] == "sorry"
        (_, events) = port.saves[1]
        assert events[0].data["error"] == "no such file"
        assert events[0].data["error_code"] == "ToolError"
        assert events[0].data["is_tool_call"] is True
        assert events[0].data["parent_node_id"] == "me"
        assert events[0].data["node_id"] == "fail_0"

    async def test_a_defect_of_a_tool_is_a_failure_like_any_other(self) -> None:
        """Without a text it has its class's name."""

        async def fail(arguments: dict[str, Any], context: ToolContext) -> str:
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

        script = Script(calls(ToolCall("c1", "fail", {"a": 1})), says("sorry"))

        await run_agent(script, tools={"fail": fail})

        assert results(script) == ["Error: ZeroDivisionError"]

    async def test_an_unknown_tool_is_named(self) -> None:
        """No node can be told about it, so there is no event."""
        script, port = Script(calls(ToolCall("c1", "fly", {})), says("sorry")), Port()

        await run_agent(script, port, tools={"add": add})

        assert results(script) == ["Error: unknown tool 'fly'"]
        assert port.told() == []

    async def test_arguments_that_do_not_fit_are_refused(self) -> None:
        """Missing, of the wrong type, or too many: the tool is not called."""
        wanted = [
            ToolCall("c1", "add", {}),
            ToolCall("c2", "add", {"a": "1"}),
            ToolCall("c3", "add", {"a": 1, "z": 1}),
        ]
        script = Script(calls(*wanted), says("sorry"))

        await run_agent(script, tools={"add": add})

        for text, field in zip(results(script), ("a", "a", "z"), strict=True):
            assert text.startswith(f"Error: invalid arguments for tool 'add': {field}: ")

    async def test_arguments_that_are_no_object_are_refused(self) -> None:
        """The other calls of the answer run all the same."""
        broken = InvalidToolCall("c1", "add", "{oops")
        script, port = Script(calls(broken, ToolCall("c2", "add", {"a": 1})), says("x")), Port()

        await run_agent(script, port, tools={"add": add})

        first, second = results(script)
        assert first.startswith("Error: invalid arguments for tool 'add': ")
        assert second == "2"
        assert port.told() == ["add running", "add running", "add failed", "add success"]

    async def test_a_tool_that_takes_too_long_is_stopped(self, autojump_clock: MockClock) -> None:
        """After its own time."""

        async def hang(arguments: dict[str, Any], context: ToolContext) -> str:
            await trio.sleep_forever()
            raise AssertionError

        script = Script(calls(ToolCall("c1", "hang", {"a": 1})), says("sorry"))

        await run_agent(script, tools={"hang": hang}, tool_timeout=7.0)

        assert results(script) == ["Error: tool 'hang' timed out after 7 seconds"]
        assert trio.current_time() == 7

    async def test_a_result_that_is_too_long_is_cut_in_the_middle(self) -> None:
        """The model sees its beginning and its end, and how much is missing."""

        async def shout(arguments: dict[str, Any], context: ToolContext) -> str:
            await trio.lowlevel.checkpoint()
            return "a" * 30_000 + "b" * 30_000

        script = Script(calls(ToolCall("c1", "shout", {"a": 1})), says("x"))

        await run_agent(script, tools={"shout": shout})

        cut = "\n\n... (10000 chars truncated) ...\n\n"
        assert results(script) == ["a" * 25_000 + cut + "b" * 25_000]

    async def test_calls_with_one_id_are_told_apart(self) -> None:
        """Each gets its own result."""
        wanted = [ToolCall("c", "add", {"a": n}) for n in (1, 2)]
        script = Script(calls(*wanted), says("x"))

        await run_agent(script, tools={"add": add})

        assert results(script) == ["2", "3"]
        ids = [m.tool_call_id for m in script.requests[-1].messages if m.role == "tool"]
        assert len(set(ids)) == 2

    async def test_a_given_id_never_meets_a_made_one(self) -> None:
        """Whatever order the ids come in."""
        wanted = [ToolCall(i, "add", {"a": n}) for n, i in enumerate(("c_2", "c", "c"))]
        script = Script(calls(*wanted), says("x"))

        await run_agent(script, tools={"add": add})

        assert results(script) == ["1", "2", "3"]

    async def test_refusals_are_saved_with_the_answer(self) -> None:
        """Recovery never runs a call that could not be read."""
        script, port = Script(calls(InvalidToolCall("c1", "add", "{oops")), says("x")), Port()

        await run_agent(script, port, tools={"add": add})

        progress, events = port.saves[0]
        assert set(progress["results"]) == {"c1"}
        assert [event.data["status"] for event in events] == ["running", "failed"]

    async def test_arguments_that_cannot_be_stored_are_refused(self) -> None:
        """And texts become readable."""
        broken = ToolCall("c1", "add", {"a": 1, "z": "\x00"})
        script, port = Script(calls(broken, text="a\x00"), says("b\x00")), Port()

        outcome = await run_agent(script, port, tools={"add": add})

        (text,) = results(script)
        assert text.startswith("Error: invalid arguments for tool 'add': text with NUL")
        assert "\\x00" not in repr(outcome)
        assert "\\x00" not in repr(port.saves)


class TestManyCalls:
    async def test_calls_beyond_the_bound_are_refused(self) -> None:
        """The model reads it; nothing else hears of them."""
        wanted = [ToolCall(f"c{n}", "add", {"a": n}) for n in range(130)]
        script, port = Script(calls(*wanted), says("x")), Port()

        await run_agent(script, port, tools={"add": add})

        read = results(script)
        assert read[:128] == [str(n + 1) for n in range(128)]
        assert read[128:] == ["Error: too many tool calls in one answer (limit 128)"] * 2
        assert len(port.told()) == 256

    async def test_ten_run_at_a_time(self, autojump_clock: MockClock) -> None:
        """The others wait for their turn."""

        async def nap(arguments: dict[str, Any], context: ToolContext) -> str:
            await trio.sleep(1)
            return ""

        wanted = [ToolCall(f"c{n}", "nap", {"a": n}) for n in range(25)]

        await run_agent(Script(calls(*wanted), says("x")), tools={"nap": nap})

        assert trio.current_time() == 3

    async def test_results_that_come_during_a_save_share_the_next(
        self, autojump_clock: MockClock
    ) -> None:
        """One save takes the time of many."""

        class SlowPort(Port):
            async def save(self, progress: Any, events: Sequence[RunEvent] = ()) -> None:
                await trio.sleep(1)
                await super().save(progress, events)

        async def nap(arguments: dict[str, Any], context: ToolContext) -> str:
            await trio.sleep(arguments["a"] / 10)
            return ""

        wanted = [ToolCall(f"c{n}", "nap", {"a": n}) for n in (10, 11, 12, 40)]
        port = SlowPort()

        await run_agent(Script(calls(*wanted), says("x")), port, tools={"nap": nap})

        assert [len(progress.get("results", ())) for progress, _ in port.saves] == [0, 1, 3, 4]
        assert port.told() == ["nap running"] * 4 + ["nap success"] * 4


async def test_functions_of_one_name_get_numbers() -> None:
    """In edge order; each leads to its own node."""
    script, port = Script(calls(ToolCall("c1", "add_2", {"a": 1})), says("x")), Port()

    await run_agent(script, port, tools={"add": add}, attached=["add", "add", "add"])

    assert [tool.name for tool in script.requests[0].tools] == ["add", "add_2", "add_3"]
    assert port.saves[0][1][0].data["node_id"] == "add_1"


async def test_without_tools_no_traces_of_tools_are_sent() -> None:
    """A provider refuses results to calls that it does not know."""
    shared = (
        message("user", "hi"),
        message("assistant", "", tool_calls=(ADD,)),
        message("tool", "2", tool_call_id="c1"),
        message("assistant", "2"),
        message("user", "and?"),
    )
    script = Script(says("x"))

    await run_agent(script, messages=shared)

    assert script.texts() == [("user", "hi"), ("assistant", "2"), ("user", "and?")]

"""wait, reply_chat, calculator and datetime: ports, tool results, errors; and the registry."""

import pytest

from pipelit.nodes.base import NodeError, ToolError
from pipelit.nodes.registry import TOOLS, build_components, find_component
from pipelit.nodes.reply import reply_chat
from pipelit.nodes.rules import RuleJudge
from pipelit.nodes.small_tools import calculator, current_datetime
from pipelit.nodes.wait import wait
from pipelit.nodes.worker import WorkerPool
from tests.nodes.calls import FixedClock, call, node, services, tool_context


@pytest.mark.parametrize(
    ("extra", "output", "seconds"),
    [
        ({"duration": 2, "unit": "minutes"}, "Waited 2 minutes", 120),
        ({"duration": "5.0"}, "Waited 5 seconds", 5),
        ({"duration": 0.5}, "Waited 0.5 seconds", 0.5),
        ({"duration": 0.1, "unit": "hours"}, "Waited 0.1 hours", 360),
        ({"duration": -3}, "Waited 0 seconds", 0),
        ({}, "Waited 0 seconds", 0),
    ],
)
async def test_wait_says_how_long(extra, output, seconds):
    """The delay is in seconds, the port in the configured unit."""
    outcome = await wait(call(**extra))

    assert outcome.ports == {"output": output}
    assert outcome.delay_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"duration": "soon"}, "Wait duration must be a number"),
        ({"duration": True}, "Wait duration must be a number"),
        ({"duration": None}, "Wait duration must be a number"),
        ({"duration": 1, "unit": "days"}, "Unknown wait unit 'days'"),
        (
            {"duration": 1, "unit": "hours"},
            "Wait of 3600s exceeds the remaining execution time (900s)",
        ),
    ],
)
async def test_a_wait_that_cannot_be_is_a_config_error(extra, message):
    """Numbers, units and the remaining time are checked at once, without retry."""
    with pytest.raises(NodeError) as caught:
        await wait(call(**extra))

    assert message == str(caught.value)
    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)


@pytest.mark.parametrize(
    ("prompt", "extra", "text"),
    [
        ("", {"message": "Done"}, "Done"),
        ("Prompt", {"message": "Done"}, "Prompt"),
        ("", {}, ""),
    ],
)
async def test_reply_chat_sets_the_output(prompt, extra, text):
    """The prompt wins over the message; the text is port and output."""
    outcome = await reply_chat(call(system_prompt=prompt, **extra))

    assert outcome.ports == {"output": text}
    assert outcome.output == text


async def test_the_calculator_step_has_its_result_as_port():
    """The expression comes from the config; failures are not retried."""
    outcome = await calculator(call(expression="7/2"))
    assert outcome.ports == {"result": "3.5"}

    for extra, code, message in (
        ({"expression": "1/0"}, "ToolError", "division by zero"),
        ({}, "ConfigError", "'expression' is required"),
    ):
        with pytest.raises(NodeError) as caught:
            await calculator(call(**extra))
        assert (str(caught.value), caught.value.code) == (message, code)
        assert not caught.value.retryable


async def test_the_calculator_tool_is_what_the_model_is_offered():
    """Name, description and schema are the contract's; errors are tool errors."""
    (tool,) = TOOLS["calculator"](node("calculator"), {}, services())

    assert (tool.spec.name, tool.spec.description) == (
        "calculator",
        "Evaluate an arithmetic expression.",
    )
    assert tool.spec.parameters == {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "Arithmetic expression"}},
        "required": ["expression"],
        "additionalProperties": False,
    }
    assert await tool.run({"expression": "12*17"}, tool_context()) == "204"
    with pytest.raises(ToolError, match="Unsupported expression: Name"):
        await tool.run({"expression": "x"}, tool_context())


async def test_datetime_tells_the_time_in_a_zone():
    """Step and tool write the same text; UTC unless configured."""
    step = await current_datetime(call(timezone="Asia/Tokyo"))
    utc = await current_datetime(call())
    config = {"extra_config": {"timezone": "Asia/Tokyo"}}
    (tool,) = TOOLS["datetime"](node("datetime"), config, services())

    assert step.ports == {"result": "2026-02-16 23:30:00 JST"}
    assert utc.ports == {"result": "2026-02-16 14:30:00 UTC"}
    assert tool.spec.name == "get_datetime"
    assert tool.spec.parameters["properties"] == {}
    assert await tool.run({}, tool_context()) == "2026-02-16 23:30:00 JST"


@pytest.mark.parametrize("zone", ["Mars/Base", "../etc/passwd", "America"])
async def test_an_unknown_zone_is_an_error(zone):
    """Names outside the zone database are refused as step and as tool."""
    message = f"unknown timezone '{zone}'"
    (tool,) = TOOLS["datetime"](node(), {"extra_config": {"timezone": zone}}, services())

    with pytest.raises(NodeError) as step:
        await current_datetime(call(timezone=zone))
    with pytest.raises(ToolError) as from_tool:
        await tool.run({}, tool_context())

    assert (str(step.value), step.value.code) == (message, "ToolError")
    assert str(from_tool.value) == message


async def test_the_registry_finds_components_and_refuses_what_is_not_built():
    """A type without a component is a config error naming it; the lists cannot be changed."""
    components = build_components(RuleJudge(WorkerPool(), FixedClock()))

    assert find_component(components, "wait") is wait
    with pytest.raises(NodeError, match="Unknown component type: 'teapot'") as caught:
        find_component(components, "teapot")
    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)
    for listing in (components, TOOLS):
        with pytest.raises(TypeError):
            listing["new"] = None

"""run_command as step and as tool: ports, result texts, errors. Contract: node-types.md §7.1."""

from pathlib import Path
from typing import Any

import pytest

from pipelit.nodes.base import NodeError, ToolError
from pipelit.nodes.command import run_command, run_command_tools
from pipelit.nodes.sandbox import TRUNCATED
from pipelit.nodes.whoami import Parent
from tests.kit.sandbox import bubblewrap, offering, parts
from tests.nodes.calls import call, node, services, tool_context

__all__ = ["bubblewrap"]

NOT_INSTALLED = "No sandbox available. Install bubblewrap (apt install bubblewrap)."


async def step(tmp_path: Path, command: object, **extra: Any):
    return await run_command(call(command=command, **extra), parts=parts(offering(tmp_path)))


async def as_tool(tmp_path: Path, command: str, **extra: Any) -> str:
    (tool,) = run_command_tools(
        node("run_command"), {"extra_config": extra}, services(), parts=parts(offering(tmp_path))
    )
    return await tool.run({"command": command}, tool_context())


@pytest.mark.parametrize(
    ("command", "result", "exit_code"),
    [
        ("echo hi; exit 3", "hi\n\n[exit code: 3]", 3),
        ("echo a; echo b >&2", "a\n\nSTDERR:\nb\n", 0),
        ("echo b >&2; exit 1", "\nSTDERR:\nb\n\n[exit code: 1]", 1),
        ("true", "(no output)", 0),
        ("false", "\n[exit code: 1]", 1),
        ("kill -9 $$", "\n[exit code: 137]", 137),
        (
            "no-such-program",
            "\nSTDERR:\nbash: line 1: no-such-program: command not found\n\n[exit code: 127]",
            127,
        ),
    ],
)
async def test_what_a_command_says_is_the_result(
    bubblewrap: str, tmp_path: Path, command: str, result: str, exit_code: int
) -> None:
    """The same text for a step and for a model; a command that fails is a result."""
    outcome = await step(tmp_path, command)

    assert outcome.ports == {"result": result, "exit_code": exit_code}
    assert await as_tool(tmp_path, command) == result


async def test_a_long_output_loses_its_middle(bubblewrap: str, tmp_path: Path) -> None:
    """The first and last 25,000 characters stay."""
    outcome = await step(tmp_path, "printf '%060000d' 1")

    text = outcome.ports["result"]
    assert text == "0" * 25_000 + "\n\n... (10000 chars truncated) ...\n\n" + "0" * 24_999 + "1"
    assert outcome.report.warnings == ()


async def test_output_that_was_not_kept_is_warned_of(bubblewrap: str, tmp_path: Path) -> None:
    """The log says that the limit was hit."""
    outcome = await step(tmp_path, "yes | head -c 200000")

    assert outcome.report.warnings == (TRUNCATED,)


async def test_a_step_can_fail_on_an_exit_code(bubblewrap: str, tmp_path: Path) -> None:
    """`fail_on_error`: retried like other errors of tools."""
    with pytest.raises(NodeError) as caught:
        await step(tmp_path, "exit 4", fail_on_error=True)

    error = caught.value
    assert str(error) == "command failed with exit code 4"
    assert (error.code, error.retryable) == ("ToolError", True)


async def test_a_command_that_is_late_is_stopped(bubblewrap: str, tmp_path: Path) -> None:
    """A step's timeout is an error of its own, a model reads a sentence."""
    with pytest.raises(NodeError) as late:
        await step(tmp_path, "sleep 60", timeout=1)
    with pytest.raises(ToolError) as told:
        await as_tool(tmp_path, "sleep 60", timeout="1")

    assert str(late.value) == "command timed out after 1 seconds"
    assert (late.value.code, late.value.retryable) == ("NodeTimeoutError", True)
    assert told.value.told == "Error: command timed out after 1 seconds"


async def test_a_step_has_no_more_time_than_its_execution(bubblewrap: str, tmp_path: Path) -> None:
    """The smallest limit counts."""
    with pytest.raises(NodeError, match=r"timed out after 0\.5 seconds"):
        await step(tmp_path, "sleep 60", remaining=0.5)


@pytest.mark.parametrize(("command", "detail"), [("echo \0", "null byte"), ("x" * 200_000, "long")])
async def test_a_command_that_the_system_refuses(
    bubblewrap: str, tmp_path: Path, command: str, detail: str
) -> None:
    """It is told as an error, not as output."""
    with pytest.raises(NodeError, match=f"command cannot be started: .*{detail}") as failed:
        await step(tmp_path, command)
    with pytest.raises(ToolError) as told:
        await as_tool(tmp_path, command)

    assert (failed.value.code, failed.value.retryable) == ("ToolError", True)
    assert told.value.told.startswith("Error: command cannot be started: ")


async def test_without_a_sandbox_nothing_runs(tmp_path: Path) -> None:
    """A step fails at once; a model reads the refusal."""
    none = parts(offering(tmp_path), search_path=str(tmp_path))
    (tool,) = run_command_tools(node("run_command"), {}, services(), parts=none)

    with pytest.raises(NodeError) as failed:
        await run_command(call(command="true"), parts=none)
    with pytest.raises(NodeError) as told:
        await tool.run({"command": "true"}, tool_context())

    for error in (failed.value, told.value):
        assert (str(error), error.code) == (NOT_INSTALLED, "SandboxUnavailable")
        assert error.retryable is False


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"command": " "}, "'command' is required"),
        ({}, "'command' is required"),
        ({"command": "true", "timeout": "soon"}, "'timeout' must be a number"),
        ({"command": "true", "workspace_id": "mine"}, "'workspace_id' must be a number"),
    ],
)
async def test_a_config_that_can_never_work(
    tmp_path: Path, extra: dict[str, Any], message: str
) -> None:
    """It is not retried."""
    with pytest.raises(NodeError, match=message) as caught:
        await run_command(call(**extra), parts=parts(offering(tmp_path)))

    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)


@pytest.mark.parametrize(
    ("own", "parent", "expected"),
    [
        ({"workspace_id": 7}, {"workspace_id": 8}, 7),
        ({"workspace_id": "7"}, {}, 7),
        ({}, {"workspace_id": 8}, 8),
        ({"workspace_id": ""}, {}, None),
    ],
)
async def test_a_tool_works_where_its_agent_does(
    bubblewrap: str, tmp_path: Path, own: dict[str, Any], parent: dict[str, Any], expected: int
) -> None:
    """Its own workspace first, then the agent's, then the default one."""
    asked: list[int | None] = []
    agent = Parent("agent", node("agent", **parent))
    (tool,) = run_command_tools(
        node("run_command"),
        {"extra_config": own},
        services(),
        parts=parts(offering(tmp_path, asked=asked), parent=agent),
    )
    await tool.run({"command": "true"}, tool_context())

    assert asked == [expected]


def test_the_tool_is_what_the_model_is_offered(tmp_path: Path) -> None:
    """Name, description, schema and time are the contract's."""
    (tool,) = run_command_tools(
        node(), {"extra_config": {"timeout": 9000}}, services(), parts=parts(offering(tmp_path))
    )

    assert tool.spec.name == "run_command"
    assert tool.spec.description == "Run a shell command and return its output."
    assert tool.spec.parameters["required"] == ["command"]
    assert tool.timeout > 3600

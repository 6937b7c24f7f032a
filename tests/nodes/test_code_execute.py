"""code_execute as step and as tool: result texts, refusals. Contract: node-types.md §7.6."""

from pathlib import Path
from typing import Any

import pytest

from pipelit.nodes.base import NodeError, ToolError
from pipelit.nodes.code_execute import code_execute, code_execute_tools
from pipelit.nodes.sandbox import TRUNCATED
from tests.kit.sandbox import bubblewrap, offering, parts
from tests.nodes.calls import call, node, services, tool_context

__all__ = ["bubblewrap"]

NOT_INSTALLED = "No sandbox available. Install bubblewrap (apt install bubblewrap)."


async def step(tmp_path: Path, code: object, **extra: Any):
    return await code_execute(call(code=code, **extra), parts=parts(offering(tmp_path)))


async def as_tool(tmp_path: Path, arguments: dict[str, str], **extra: Any) -> str:
    (tool,) = code_execute_tools(
        node("code_execute"), {"extra_config": extra}, services(), parts=parts(offering(tmp_path))
    )
    return await tool.run(arguments, tool_context())


@pytest.mark.parametrize(
    ("language", "code", "result"),
    [
        ("python", "print(2+2)", "stdout:\n4\n\nexit_code: 0\nresult: 4"),
        ("python", "x = 1", "exit_code: 0"),
        (
            "python",
            'print("a")\nprint(\'{"b": [1]}\')',
            'stdout:\na\n{"b": [1]}\n\nexit_code: 0\nresult: {"b": [1]}',
        ),
        ("python", 'print("NaN")', "stdout:\nNaN\n\nexit_code: 0"),
        ("python", "import sys\nsys.exit(2)", "exit_code: 2"),
        ("bash", "echo 4", "stdout:\n4\n\nexit_code: 0"),
        ("bash", "echo a >&2\nfalse\necho b", "stderr:\na\n\nexit_code: 1"),
    ],
)
async def test_what_code_says_is_the_result(
    bubblewrap: str, tmp_path: Path, language: str, code: str, result: str
) -> None:
    """The same text for a step and for a model; bash stops at the first failure."""
    outcome = await step(tmp_path, code, language=language)

    assert outcome.ports == {"result": result}
    assert await as_tool(tmp_path, {"code": code, "language": language}) == result


async def test_a_trace_is_a_result(bubblewrap: str, tmp_path: Path) -> None:
    """A model can read what it did wrong."""
    text = await as_tool(tmp_path, {"code": "1/0"})

    assert text.startswith("stderr:\nTraceback")
    assert text.endswith("ZeroDivisionError: division by zero\n\nexit_code: 1")


async def test_the_configured_language_is_the_default(bubblewrap: str, tmp_path: Path) -> None:
    """An empty language of a call means it."""
    arguments = {"code": "echo $((1+1))", "language": ""}

    assert await as_tool(tmp_path, arguments, language="bash") == "stdout:\n2\n\nexit_code: 0"


@pytest.mark.parametrize(
    ("code", "language", "message", "told"),
    [
        (" ", "", "No code provided to execute", "Error: No code provided to execute"),
        (
            "x",
            "ruby",
            "Language 'ruby' not supported. Use 'python' or 'bash'.",
            "Error: Language 'ruby' not supported. Use 'python' or 'bash'.",
        ),
        (
            "import os",
            "python",
            "Security violation: Forbidden pattern detected: import os",
            "Security violation: Forbidden pattern detected: import os",
        ),
        (
            "rm -rf /",
            "bash",
            "Security violation: Forbidden pattern detected: rm -rf /",
            "Security violation: Forbidden pattern detected: rm -rf /",
        ),
    ],
)
async def test_code_that_is_not_run(
    tmp_path: Path, code: str, language: str, message: str, told: str
) -> None:
    """A step fails for good, a model reads why. No sandbox is needed to say so."""
    with pytest.raises(NodeError) as failed:
        await step(tmp_path, code, language=language)
    with pytest.raises(ToolError) as refused:
        await as_tool(tmp_path, {"code": code, "language": language})

    assert str(failed.value) == message
    assert (failed.value.code, failed.value.retryable) == ("ToolError", False)
    assert refused.value.told == told


async def test_the_scan_can_be_switched_off_but_not_the_sandbox(
    bubblewrap: str, tmp_path: Path
) -> None:
    """`sandbox: false` allows the import; the process still sees nothing of the host."""
    code = "import os\nprint(os.getcwd(), os.listdir('/home') if os.path.exists('/home') else '')"
    text = await as_tool(tmp_path, {"code": code}, sandbox=False)

    assert text == "stdout:\n/workspace \n\nexit_code: 0"


async def test_code_that_is_late_is_stopped(bubblewrap: str, tmp_path: Path) -> None:
    """The model reads the sentence as it is."""
    with pytest.raises(NodeError) as late:
        await step(tmp_path, "while True: pass", timeout_seconds=1)
    with pytest.raises(ToolError) as told:
        await as_tool(tmp_path, {"code": "while True: pass"}, timeout_seconds=1)

    assert str(late.value) == told.value.told == "Execution timed out after 1 seconds"
    assert (late.value.code, late.value.retryable) == ("NodeTimeoutError", True)


async def test_output_that_was_not_kept_is_warned_of(bubblewrap: str, tmp_path: Path) -> None:
    """And what is left loses its middle."""
    outcome = await step(tmp_path, "print('x' * 200_000)")

    assert outcome.report.warnings == (TRUNCATED,)
    assert "chars truncated) ..." in outcome.ports["result"]


async def test_without_a_sandbox_nothing_runs(tmp_path: Path) -> None:
    """A step fails at once, and a model reads the refusal."""
    none = parts(offering(tmp_path), search_path=str(tmp_path))
    (tool,) = code_execute_tools(node(), {}, services(), parts=none)

    with pytest.raises(NodeError) as failed:
        await code_execute(call(code="1"), parts=none)
    with pytest.raises(NodeError) as told:
        await tool.run({"code": "1"}, tool_context())

    for error in (failed.value, told.value):
        assert (str(error), error.code) == (NOT_INSTALLED, "SandboxUnavailable")
        assert error.retryable is False


async def test_code_is_required_as_a_step(tmp_path: Path) -> None:
    """A missing key is an error of the config."""
    with pytest.raises(NodeError, match="'code' is required") as caught:
        await step(tmp_path, None)

    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)


def test_the_tool_is_what_the_model_is_offered(tmp_path: Path) -> None:
    """Name, description and schema are the contract's."""
    (tool,) = code_execute_tools(node(), {}, services(), parts=parts(offering(tmp_path)))

    assert tool.spec.name == "code_execute"
    assert tool.spec.description == (
        "Run Python or Bash code. Returns stdout, stderr and exit code."
    )
    assert tool.spec.parameters["required"] == ["code"]
    assert tool.spec.parameters["properties"]["language"]["default"] == ""

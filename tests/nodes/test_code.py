"""The `code` node: what a snippet sees, gives and how it fails. Contract: node-types.md §10.2."""

from pathlib import Path
from typing import Any

import pytest

from pipelit.engine.outcome import Outcome
from pipelit.nodes.base import NodeError
from pipelit.nodes.code import CodeRunner, load_driver
from tests.kit.sandbox import bubblewrap, offering, parts
from tests.nodes.calls import call

__all__ = ["bubblewrap"]

NOT_INSTALLED = "No sandbox available. Install bubblewrap (apt install bubblewrap)."


def runner(tmp_path: Path, *, search_path: str | None = None, **variables: str) -> CodeRunner:
    find = offering(tmp_path, variables=variables)
    built = parts(find) if search_path is None else parts(find, search_path=search_path)
    return CodeRunner(built.sandbox, load_driver())


async def run(tmp_path: Path, code: object, **fields: Any) -> Outcome:
    return await runner(tmp_path)(call(code=code, **fields))


async def fail(tmp_path: Path, code: object, **fields: Any) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await run(tmp_path, code, **fields)
    return caught.value


@pytest.mark.parametrize(
    ("code", "output", "result", "stdout"),
    [
        ('return {"n": 5}', '{"n": 5}', {"n": 5}, ""),
        ("return ['é', 1.5, None]", '["é", 1.5, null]', ["é", 1.5, None], ""),
        ("return (1, 2)", "[1, 2]", [1, 2], ""),
        ("return 'as is'", "as is", "as is", ""),
        ("return 42", "42", 42, ""),
        ("return True", "True", True, ""),
        ("return 0", "0", 0, ""),
        ("return ''", "", "", ""),
        ("result = 7", "7", 7, ""),
        ("result: int = 7\nreturn", "7", 7, ""),
        ("result = 7\nreturn 8", "8", 8, ""),
        ("print(' said ')", "said", "said", " said \n"),
        ("print('said')\nreturn 1", "1", 1, "said\n"),
        ("pass", "", "", ""),
        ("# nothing", "", "", ""),
        ("import datetime\nreturn datetime.date(2026, 1, 2)", "2026-01-02", "2026-01-02", ""),
        (
            "import datetime\nreturn [datetime.date(2026, 1, 2)]",
            '["2026-01-02"]',
            ["2026-01-02"],
            "",
        ),
        ("def f(n):\n    return n and n + f(n - 1)\nreturn f(4)", "10", 10, ""),
        ("text = '''a\n  b'''\nreturn text", "a\n  b", "a\n  b", ""),
        ("return json.loads('[1]')", "[1]", [1], ""),
    ],
)
async def test_what_a_snippet_gives(
    bubblewrap: str, tmp_path: Path, code: str, output: str, result: Any, stdout: str
) -> None:
    """What it returns, else `result`, else what it printed; as text, as JSON, and the print."""
    outcome = await run(tmp_path, code)

    assert outcome.ports == {"output": output, "result": result, "stdout": stdout}


async def test_what_a_snippet_sees(bubblewrap: str, tmp_path: Path) -> None:
    """State, outputs and the trigger, by key and by attribute; what it changes stays inside."""
    seen = call(
        code="state['x'] = 1\n"
        "return [node_outputs.a.output, node_outputs['a']['output'], trigger.payload.name,"
        " state.route, loop.item, input_data]",
        outputs={"t": {"payload": {"name": "Ann"}}, "a": {"output": {"k": ["é"]}}},
        trigger="t",
        predecessors=("a", "t"),
        state={"route": "r", "loop": {"item": 3, "index": 0}},
    )
    outcome = await runner(tmp_path)(seen)

    value = {"k": ["é"]}
    assert outcome.ports["result"] == [value, value, "Ann", "r", 3, '{"k": ["é"]}']
    assert "x" not in seen.state


@pytest.mark.parametrize(
    ("value", "text"), [("plain", "plain"), (None, ""), (5, "5"), ([1], "[1]"), (False, "false")]
)
async def test_the_input_is_the_predecessors_value_as_text(
    bubblewrap: str, tmp_path: Path, value: Any, text: str
) -> None:
    """JSON text if it is no string; empty without a value."""
    outcome = await run(
        tmp_path, "return input_data", outputs={"a": {"output": value}}, predecessors=("a",)
    )

    assert outcome.ports["result"] == text


async def test_without_a_predecessor_or_a_loop_there_is_none(
    bubblewrap: str, tmp_path: Path
) -> None:
    """The names are there all the same."""
    assert (await run(tmp_path, "return [input_data, loop]")).ports["result"] == ["", None]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('no')", "raise ValueError('no')\nValueError: no"),
        ("x = (", "SyntaxError: '(' was never closed"),
        ("import sys\nsys.exit('bye')", "Code execution failed (exit 1): bye"),
        ("return float('nan')", "JSON compliant"),
        ("return {(1, 2): 3}", "TypeError: keys must be"),
        ("import os\nos.kill(os.getpid(), 9)", "Code execution failed (exit 137):"),
    ],
)
async def test_a_snippet_that_fails(
    bubblewrap: str, tmp_path: Path, code: str, message: str
) -> None:
    """Its own lines of the trace are told; it is retried."""
    error = await fail(tmp_path, code)

    assert str(error).startswith("Code execution failed (exit 1")
    assert message in str(error)
    assert "run.py" not in str(error)
    assert (error.code, error.retryable) == ("RuntimeError", True)


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nprint('why', file=sys.stderr)\nsys.exit(0)",
        "import sys, os\nos.write(int(sys.argv[2]), b'{')\nprint('why', file=sys.stderr)\n"
        "os._exit(0)",
        "import sys, os\nos.write(int(sys.argv[2]), b'[1]')\nprint('why', file=sys.stderr)\n"
        "os._exit(0)",
    ],
)
async def test_a_snippet_without_a_result(bubblewrap: str, tmp_path: Path, code: str) -> None:
    """It left before its end, or what it left is no result: that is a failure, not an empty one."""
    error = await fail(tmp_path, code)

    assert str(error) == "Code execution produced no output file. stderr: why"
    assert (error.code, error.retryable) == ("RuntimeError", True)


async def test_a_snippet_that_is_late_is_stopped(bubblewrap: str, tmp_path: Path) -> None:
    """A timeout is an error of its own."""
    error = await fail(tmp_path, "while True: pass", timeout=1)

    assert str(error) == "Code execution timed out after 1 seconds"
    assert (error.code, error.retryable) == ("NodeTimeoutError", True)


async def test_values_of_variables_do_not_show(bubblewrap: str, tmp_path: Path) -> None:
    """Not in the result, not in the print, not in a failure."""
    run_with = runner(tmp_path, TOKEN='se"cret')
    code = "import os\nt = os.environ['TOKEN']\nprint(t)\n"
    outcome = await run_with(call(code=code + "return {t: [t]}"))
    with pytest.raises(NodeError) as failed:
        await run_with(call(code=code + "raise ValueError(t)"))

    assert outcome.ports["result"] == {"****": ["****"]}
    assert (outcome.ports["output"], outcome.ports["stdout"]) == ('{"****": ["****"]}', "****\n")
    assert "ValueError: ****" in str(failed.value)


async def test_a_template_runs_nothing(tmp_path: Path) -> None:
    """The rendered text is the value; no sandbox is needed."""
    template = call(code="Dear Ann", language="template")
    outcome = await runner(tmp_path, search_path=str(tmp_path))(template)

    assert outcome.ports == {"output": "Dear Ann", "result": "Dear Ann", "stdout": ""}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"code": ""}, "No code provided"),
        ({"code": "x", "language": "bash"}, "Language 'bash' not supported"),
        ({"code": "x" * 100_001}, "'code' is longer than 100000 characters"),
        ({"code": "x", "timeout": []}, "'timeout' must be a number"),
    ],
)
async def test_a_config_that_can_never_work(
    tmp_path: Path, extra: dict[str, Any], message: str
) -> None:
    """It is not retried."""
    error = await fail(tmp_path, **extra)

    assert (str(error), error.code, error.retryable) == (message, "ConfigError", False)


async def test_without_a_sandbox_nothing_runs(tmp_path: Path) -> None:
    """It fails at once: code never runs in the server."""
    with pytest.raises(NodeError) as caught:
        await runner(tmp_path, search_path=str(tmp_path))(call(code="return 1"))

    error = caught.value
    assert (str(error), error.code, error.retryable) == (NOT_INSTALLED, "SandboxUnavailable", False)

"""The `code` node: Python of the workflow's author, in the sandbox; or a template.

Contract: node-types.md §10.2.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from pipelit.engine.outcome import Outcome, Report, json_size
from pipelit.engine.values import to_text
from pipelit.nodes import snippet_main
from pipelit.nodes.base import NodeCall, NodeError, config_error
from pipelit.nodes.items import read_output
from pipelit.nodes.process import TimedOut
from pipelit.nodes.sandbox import MAX_RESULT, TRUNCATED, Completed, Job, Sandbox
from pipelit.nodes.sandbox_config import read_seconds, read_workspace

DEFAULT_SECONDS = 60
MAX_SECONDS = 600
MAX_CODE_CHARS = 100_000

_MAX_TOLD = 1_500
_DRIVER, _JOB = "/.job/run.py", "/.job/job.json"


class Value(msgspec.Struct, frozen=True):
    """What a snippet gave: a JSON value and its text form."""

    value: Any
    text: str


class CodeRunner:
    """Runs `code` nodes.

    Args:
        driver: source of the program that runs the snippet.
    """

    def __init__(self, sandbox: Sandbox, driver: bytes) -> None:
        self._sandbox = sandbox
        self._driver = driver

    async def __call__(self, call: NodeCall) -> Outcome:
        """Run the configured code.

        Raises:
            NodeError: as the contract lists them.
        """
        code = to_text(call.extra.get("code"))
        if not code.strip():
            raise config_error("No code provided")
        if len(code) > MAX_CODE_CHARS:
            raise config_error(f"'code' is longer than {MAX_CODE_CHARS} characters")
        language = to_text(call.extra.get("language")) or "python"
        if language == "template":
            return _outcome(Value(code, code), "")
        if language != "python":
            raise config_error(f"Language '{language}' not supported")
        completed = await self._run(code, call)
        if completed.exit_code:
            told = completed.stderr.strip()[-_MAX_TOLD:]
            raise _failed(f"Code execution failed (exit {completed.exit_code}): {told}")
        value = _read(completed)
        return _outcome(value, completed.stdout, truncated=completed.truncated)

    async def _run(self, code: str, call: NodeCall) -> Completed:
        seconds = read_seconds(call.extra, "timeout", default=DEFAULT_SECONDS, most=MAX_SECONDS)
        seconds = min(seconds, call.remaining_seconds)
        job = msgspec.json.encode({"code": code, "names": _names(call)})
        try:
            return await self._sandbox.run(
                Job(
                    command=("python3", _DRIVER, _JOB),
                    seconds=seconds,
                    files={_DRIVER: self._driver, _JOB: job},
                    wants_result=True,
                ),
                workflow_id=call.identity.workflow_id,
                workspace_id=read_workspace(call.extra),
            )
        except TimedOut as error:
            raise NodeError(
                f"Code execution timed out after {seconds:g} seconds", code="NodeTimeoutError"
            ) from error


def load_driver() -> bytes:
    """Return the source of the program that runs snippets. Blocks."""
    return Path(snippet_main.__file__).read_bytes()


def _names(call: NodeCall) -> dict[str, Any]:
    """Return what a snippet sees."""
    state = call.state
    return {
        "state": state,
        "node_outputs": state["node_outputs"],
        "trigger": state["trigger"],
        "loop": state.get("loop"),
        "input_data": _input_of(call),
    }


def _input_of(call: NodeCall) -> str:
    """Return the primary value of the first predecessor as text."""
    value = read_output(call, call.predecessors[0]) if call.predecessors else None
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _read(completed: Completed) -> Value:
    """Return the value of a snippet that ended well: its result, else what it printed."""
    if len(completed.result) > MAX_RESULT:
        raise _failed(f"Code execution failed: the result is larger than {MAX_RESULT} bytes")
    try:
        reply = json.loads(completed.result)
        if not reply:
            printed = completed.stdout.strip()
            return Value(printed, printed)
        value = Value(completed.mask.json(reply["value"]), completed.mask.json(reply["text"]))
        json_size(value)  # raises for numbers that no store could take
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        told = completed.stderr.strip()[-_MAX_TOLD:]
        raise _failed(f"Code execution produced no output file. stderr: {told}") from error
    return value


def _outcome(value: Value, stdout: str, *, truncated: bool = False) -> Outcome:
    return Outcome(
        ports={"output": value.text, "result": value.value, "stdout": stdout},
        report=Report(warnings=(TRUNCATED,) * truncated),
    )


def _failed(message: str) -> NodeError:
    return NodeError(message, code="RuntimeError")

"""`validate_gherkin`: tells an agent whether a feature text is sound.

The grammar is that of Cucumber's own parser; style is judged by `gherlint`, where the agent's
workspace has it.

Contract: node-types.md §7.7.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import structlog
import trio
from gherkin.errors import CompositeParserException, ParserException
from gherkin.parser import Parser

from pipelit.engine.definition import NodeDef
from pipelit.nodes.base import NodeError, NodeServices, Tool, ToolContext
from pipelit.nodes.json_tools import dump
from pipelit.nodes.process import TimedOut
from pipelit.nodes.sandbox import Job, tool_timeout
from pipelit.nodes.sandbox_config import SandboxParts, find_tool_workspace
from pipelit.nodes.tool_limits import text
from pipelit.nodes.tool_schema import tool_spec

LINT_SECONDS = 30.0
MAX_SPEC_CHARS = 262_144
MAX_PROBLEMS = 200

_VALIDATE = tool_spec(
    "validate_gherkin",
    "Check a Gherkin feature text. Returns JSON with errors and warnings.",
    {"gherkin_spec": text("The feature text")},
    required=("gherkin_spec",),
)
_SPEC_FILE = "/.job/spec.feature"
_LINTER = """
import json, sys
from pathlib import Path
from gherlint.linter import GherkinLinter
from gherlint.reporting import TextReporter
found = []
def emit(self, message, node, **given):
    text = message.text.format(**given) if given else message.text
    found.append({"code": message.id, "message": text, "line": node.line or 0})
TextReporter.emit = emit
GherkinLinter(Path(sys.argv[1])).run()
print(json.dumps(found))
"""

log = structlog.get_logger(__name__)


class ParseProblem(msgspec.Struct, frozen=True):
    """Where a text breaks the grammar; line 0: nobody knows."""

    message: str
    line: int


class LintProblem(msgspec.Struct, frozen=True):
    """What a linter does not like. Codes of errors start with `E`."""

    code: str
    message: str
    line: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a feature text is worth."""

    valid: bool
    parse_errors: tuple[ParseProblem, ...] = ()
    lint_warnings: tuple[LintProblem, ...] = ()
    lint_errors: tuple[LintProblem, ...] = ()


def validate_gherkin_tools(
    node: NodeDef, config: dict[str, Any], _services: NodeServices, *, parts: SandboxParts
) -> tuple[Tool, ...]:
    """Offer `validate_gherkin`."""
    extra = config.get("extra_config") or {}

    async def run(arguments: dict[str, Any], context: ToolContext) -> str:
        spec: str = arguments["gherkin_spec"]
        problems = await trio.to_thread.run_sync(partial(parse, spec), abandon_on_cancel=True)
        if problems:
            return _show(Verdict(valid=False, parse_errors=problems))
        return _show(judge(await _lint(spec, node, extra, context, parts)))

    return (Tool(spec=_VALIDATE, node=node, run=run, timeout=tool_timeout(LINT_SECONDS)),)


def parse(spec: str) -> tuple[ParseProblem, ...]:
    """Return where a text breaks the grammar. Noticeable work, so for a thread."""
    if not spec.strip():
        return (ParseProblem("Empty Gherkin spec provided", 0),)
    if len(spec) > MAX_SPEC_CHARS:
        return (ParseProblem(f"Gherkin spec must be at most {MAX_SPEC_CHARS} characters", 0),)
    try:
        Parser().parse(spec)
    except CompositeParserException as error:
        return tuple(map(_problem, error.errors[:MAX_PROBLEMS]))
    except ParserException as error:
        return (_problem(error),)
    except Exception as error:
        # A text that breaks the parser breaks the grammar, too; the operator reads how.
        log.exception("gherkin parser failed")
        return (ParseProblem(str(error) or type(error).__name__, 0),)
    return ()


def judge(found: tuple[LintProblem, ...]) -> Verdict:
    """Return what follows from what the linter found. Pure."""
    errors = tuple(problem for problem in found if problem.code.startswith("E"))
    warnings = tuple(problem for problem in found if not problem.code.startswith("E"))
    return Verdict(valid=not errors, lint_errors=errors, lint_warnings=warnings)


async def _lint(
    spec: str, node: NodeDef, extra: Mapping[str, Any], context: ToolContext, parts: SandboxParts
) -> tuple[LintProblem, ...]:
    """Return what the linter of the workspace finds; nothing where there is none."""
    job = Job(
        command=("python3", "-c", _LINTER, _SPEC_FILE),
        seconds=LINT_SECONDS,
        files={_SPEC_FILE: spec.encode(errors="replace")},
    )
    try:
        completed = await parts.sandbox.run(
            job,
            workflow_id=context.caller.workflow_id,
            workspace_id=await find_tool_workspace(node, extra, context, parts.find_parent),
        )
    except (NodeError, TimedOut, OSError, ValueError):
        return ()  # the grammar is what counts
    if completed.exit_code:
        return ()
    try:
        return msgspec.json.decode(completed.stdout, type=tuple[LintProblem, ...])[:MAX_PROBLEMS]
    except msgspec.MsgspecError:
        return ()


def _problem(error: ParserException) -> ParseProblem:
    # The position is a field of its own.
    message = str(error).partition("): ")[2] or str(error)
    return ParseProblem(message, error.location.get("line", 0))


def _show(verdict: Verdict) -> str:
    return dump(json.loads(msgspec.json.encode(verdict)))

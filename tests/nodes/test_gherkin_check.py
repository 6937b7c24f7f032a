"""validate_gherkin: Cucumber's grammar, then the linter of the workspace, if there is one."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from pipelit.nodes.base import NodeError
from pipelit.nodes.gherkin_check import LintProblem, judge, parse, validate_gherkin_tools
from pipelit.nodes.masking import Mask
from pipelit.nodes.sandbox import Completed
from pipelit.nodes.sandbox_config import SandboxParts
from tests.nodes.calls import node, services, tool_context

GOOD = "Feature: X\n  Scenario: a\n    Given b"
FOUND = '[{"code": "W203", "message": "m", "line": 2}, {"code": "E301", "message": "n", "line": 4}]'


@dataclass
class FakeSandbox:
    """Ends every job as it is told."""

    ends: Any

    async def run(self, job: Any, **_: Any) -> Completed:
        assert job.files["/.job/spec.feature"] == GOOD.encode()
        if isinstance(self.ends, Exception):
            raise self.ends
        exit_code, stdout = self.ends
        return Completed(
            exit_code=exit_code,
            stdout=stdout,
            stderr="",
            truncated=False,
            result=b"",
            mask=Mask(()),
        )


async def check(spec: str, ends: Any = (1, "")) -> Any:
    async def find_parent(workflow_id: int, node_id: str) -> None:
        return None

    parts = SandboxParts(sandbox=FakeSandbox(ends), find_parent=find_parent)
    (tool,) = validate_gherkin_tools(node("validate_gherkin"), {}, services(), parts=parts)
    return json.loads(await tool.run({"gherkin_spec": spec}, tool_context()))


@pytest.mark.parametrize(
    ("spec", "message", "line"),
    [
        ("", "Empty Gherkin spec provided", 0),
        (" \n", "Empty Gherkin spec provided", 0),
        ("hello", "expected: #EOF, #Language, #TagLine, #FeatureLine", 1),
        ("# language: xx\nFeature: a", "Language not supported: xx", 1),
        (f"{GOOD}\n  | a |\n  | a | b |", "inconsistent cell count within the table", 5),
        ("x" * 262_145, "Gherkin spec must be at most 262144 characters", 0),
    ],
)
async def test_a_text_that_breaks_the_grammar_is_not_valid(spec, message, line):
    """With the line, where it is known."""
    told = await check(spec)

    (problem,) = told["parse_errors"]
    assert (told["valid"], told["lint_warnings"], told["lint_errors"]) == (False, [], [])
    assert problem["message"].startswith(message)
    assert problem["line"] == line


def test_every_error_is_told():
    spec = f"{GOOD}\n    foo\n  | a |\n | a | b |"

    assert [problem.line for problem in parse(spec)] == [4, 6]


@pytest.mark.parametrize(
    "ends",
    [
        (1, "no module named gherlint"),
        (0, "not JSON"),
        (0, "[]"),
        NodeError("No sandbox available.", code="SandboxUnavailable"),
        OSError("too long"),
    ],
)
async def test_without_a_linter_the_grammar_is_all(ends):
    """Whatever keeps it away."""
    assert await check(GOOD, ends) == {
        "valid": True,
        "parse_errors": [],
        "lint_warnings": [],
        "lint_errors": [],
    }


async def test_the_linter_s_errors_make_it_invalid():
    """Codes that begin with E; others are warnings."""
    assert await check(GOOD, (0, FOUND)) == {
        "valid": False,
        "parse_errors": [],
        "lint_warnings": [{"code": "W203", "message": "m", "line": 2}],
        "lint_errors": [{"code": "E301", "message": "n", "line": 4}],
    }


def test_warnings_alone_do_no_harm():
    assert judge((LintProblem("C1", "m", 1),)).valid is True

"""A server that is killed under load keeps its promises; a broken one is noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.soak.history import History
from ops.soak.kill_loop import Story, check_story, report

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_server_that_is_killed_twice_breaks_no_promise() -> None:
    """One of the kills comes before or while it recovers."""
    done = subprocess.run(
        [sys.executable, "ops/soak/kill_loop.py", "--kills", "2", "--rate", "8"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 kills (1 of them early)")
    assert done.stdout.endswith("violations: 0\n")


@pytest.mark.parametrize(
    "change",
    [{"stuck": [0, 1, 0]}, {"stuck": []}, {"exit_code": 1}, {"complaint": "a row is gone"}],
)
def test_what_the_server_says_of_itself_counts(
    change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"stuck": [0, 0], "exit_code": 0, "complaint": ""}
    assert list(check_story(Story(**good))) == []

    story = Story(**(good | change))
    assert report(History(), story, {"A promise.": list(check_story(story))}) == 1
    assert "violations: 1" in capsys.readouterr().out

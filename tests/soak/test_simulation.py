"""A whole server from a seed: what it promises holds, and planted bugs are noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def simulate(*options: str) -> tuple[int, str]:
    """Run the program in a process of its own; return its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "ops/soak/simulate.py", "--jobs", "1", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_some_seeds_break_no_promise():
    """They hold deaths of the server, crashes of actors and refusing storage."""
    code, said = simulate("--seeds", "4")
    assert code == 0, said
    assert "deaths" in said


@pytest.mark.slow
def test_a_seed_is_one_history():
    """Replaying a failure shows the same failure, to the byte."""
    first, second = (simulate("--seed", "6")[1].splitlines()[0] for _ in range(2))
    assert first == second
    assert first.startswith("seed 6: history ")


@pytest.mark.slow
def test_a_planted_bug_is_found_with_the_command_that_replays_it():
    """Somebody who reads a red build has one line to copy."""
    code, said = simulate("--seeds", "3", "--plant", "skipped-number")
    assert code == 0, said
    assert "skipped-number: found" in said
    assert "python ops/soak/simulate.py --seed 0 --plant skipped-number" in said

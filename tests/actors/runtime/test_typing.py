"""The protocol of an actor is checked by mypy: right uses pass, planted mistakes are found."""

import re
from pathlib import Path

import pytest
from mypy import api

SAMPLES = Path(__file__).with_name("protocol_samples.py")
ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(110)
def test_mypy_finds_every_planted_mistake_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong reply, forgotten message, foreign message: each is an error where it stands."""
    monkeypatch.chdir(ROOT)
    expected = {
        (number, match.group(1))
        for number, line in enumerate(SAMPLES.read_text().splitlines(), start=1)
        if (match := re.search(r"# error: ([\w-]+)$", line))
    }

    report, complaint, _ = api.run(
        ["--strict", "--no-pretty", f"--cache-dir={tmp_path}", str(SAMPLES)]
    )

    assert complaint == ""
    found = re.findall(r"^.*protocol_samples\.py:(\d+): error: .*\[([\w-]+)\]$", report, re.M)
    assert {(int(number), code) for number, code in found} == expected

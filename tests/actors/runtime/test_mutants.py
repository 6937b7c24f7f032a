"""The deliberate bugs kept in `ops/mutants` still fit the code; `run.py` there tries them."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PATCHES = sorted((ROOT / "ops" / "mutants").glob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_kept_bug_fits_the_code_and_names_its_test(patch: Path) -> None:
    """Each patch applies, and the test that must notice it exists."""
    check = subprocess.run(
        ["git", "apply", "--check", str(patch)], cwd=ROOT, capture_output=True, check=False
    )
    named = re.search(r"^Test: (\S+)::(\w+)$", patch.read_text(), re.MULTILINE)

    assert check.returncode == 0, check.stderr.decode()
    assert named is not None
    assert f"def {named[2]}(" in (ROOT / named[1]).read_text()


def test_there_is_a_bug_for_every_promise_of_the_runtime() -> None:
    """Promises 1 to 19 without 13, which is not given."""
    promises = {int(patch.stem[:2]) for patch in PATCHES}

    assert promises == set(range(1, 20)) - {13}

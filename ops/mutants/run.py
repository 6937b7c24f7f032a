"""Break the actor runtime on purpose, one bug at a time, and see that a test notices.

Usage: python ops/mutants/run.py [NAME…]. Each `*.patch` beside this file names the promise that it
breaks and the test that must fail. A test that fails or hangs kills the mutant; a mutant that
survives makes the exit code 1, and so does a test that fails on the unbroken code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPIED = ("pipelit", "tests/actors/runtime", "pyproject.toml")
PACKAGES = ("tests", "tests/actors")
TIMEOUT = 180


def copy_tree(target: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    for name in PACKAGES:
        (target / name / "__init__.py").touch()


def run_tests(tree: Path, *tests: str) -> str:
    """Return `passed`, `failed` or `hung`."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "HYPOTHESIS_STORAGE_DIRECTORY": str(tree)}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return "hung"
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest itself failed on {tests}:\n{done.stdout.decode()}")
    return "failed" if done.returncode else "passed"


def header(patch: Path, name: str) -> str:
    """Return the value of a `Name: value` line at the top of *patch*."""
    for line in patch.read_text().splitlines():
        if line.startswith(f"{name}: "):
            return line.partition(": ")[2]
    raise SystemExit(f"{patch.name} has no line '{name}: …'")


def try_mutant(patch: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        subprocess.run(["git", "apply", str(patch)], cwd=tree, check=True)
        return run_tests(tree, header(patch, "Test"))


def check_unbroken(patches: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        if run_tests(Path(folder), *{header(patch, "Test") for patch in patches}) != "passed":
            raise SystemExit("the tests fail on the unbroken code")


def main(names: list[str]) -> int:
    patches = sorted(p for p in HERE.glob("*.patch") if not names or p.stem in names)
    check_unbroken(patches)
    survivors = 0
    for patch in patches:
        result = try_mutant(patch)
        survivors += result == "passed"
        verdict = "SURVIVED" if result == "passed" else f"killed ({result})"
        print(f"{header(patch, 'Promise'):>3}  {patch.stem:34}{verdict:18}{header(patch, 'Bug')}")
    print(f"{len(patches)} mutants, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

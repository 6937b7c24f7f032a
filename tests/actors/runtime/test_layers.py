"""The runtime could be a package of its own."""

import ast
import sys
from pathlib import Path

import pipelit.actors.runtime as runtime

ALLOWED = {"trio", "msgspec", "pipelit.errors"}
FOLDER = Path(runtime.__file__).parent


def imported_by(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_the_runtime_imports_trio_msgspec_the_library_and_our_errors() -> None:
    """Nothing else of ours, and no other package."""
    foreign = {
        f"{path.name}: {name}"
        for path in FOLDER.glob("*.py")
        for name in imported_by(path.read_text())
        if name not in ALLOWED
        and not name.startswith(("pipelit.actors.runtime", "trio."))
        and name.partition(".")[0] not in sys.stdlib_module_names
    }

    assert foreign == set()


def test_every_name_of_the_public_api_exists() -> None:
    """`__all__` is sorted, complete and real."""
    assert runtime.__all__ == sorted(runtime.__all__)
    assert all(hasattr(runtime, name) for name in runtime.__all__)

"""Sandboxes for tests: a workspace in a temporary directory, and the bubblewrap of this machine."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from pipelit.nodes.bubblewrap import NOT_INSTALLED, find_problem
from pipelit.nodes.sandbox import FindWorkspace, Sandbox, Workspace
from pipelit.nodes.sandbox_config import SandboxParts
from pipelit.nodes.whoami import FindParent, Parent

SEARCH_PATH = os.environ.get("PATH", os.defpath)


@pytest.fixture(scope="session")
def bubblewrap() -> str:
    """Skip without a bubblewrap that works; else return where programs are looked for."""
    problem = trio.run(_problem)
    if problem == NOT_INSTALLED:
        pytest.skip("bubblewrap is not installed")
    if problem:
        pytest.skip(f"bubblewrap cannot start here: {problem}")
    return SEARCH_PATH


async def _problem() -> str:
    return await find_problem(shutil.which("bwrap", path=SEARCH_PATH), {"PATH": SEARCH_PATH})


def offering(
    path: Path,
    *,
    allow_network: bool = False,
    variables: Mapping[str, str] | None = None,
    asked: list[int | None] | None = None,
) -> FindWorkspace:
    """Find a workspace at *path* whatever is asked for; all its variables are secret."""
    (path / ".tmp").mkdir(exist_ok=True)
    given = dict(variables or {})

    async def find(_workflow_id: int, workspace_id: int | None) -> Workspace:
        if asked is not None:
            asked.append(workspace_id)
        return Workspace(
            path=str(path),
            allow_network=allow_network,
            variables=given,
            secrets=list(given.values()),
        )

    return find


def parts(
    find: FindWorkspace, *, search_path: str = SEARCH_PATH, parent: Parent | None = None
) -> SandboxParts:
    """Build what nodes are built with."""
    return SandboxParts(sandbox=Sandbox(find, search_path=search_path), find_parent=always(parent))


def always(parent: Parent | None) -> FindParent:
    async def find_parent(_workflow_id: int, _node_id: str) -> Parent | None:
        return parent

    return find_parent


def sleepers(mark: str) -> list[str]:
    """Return the processes of this machine that sleep for *mark* seconds."""
    wanted = f"sleep\0{mark}\0".encode()
    return [pid for pid, line in command_lines().items() if line == wanted]


def command_lines() -> dict[str, bytes]:
    """Return {process: its command line} of this machine."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found[entry.parent.name] = entry.read_bytes()
    return found

"""What an agent is told of the sandbox its tools work in. Contract: engine.md §22.7."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from pipelit.services.environment import RUNTIMES, TIER_1, TIER_2, Findings
from pipelit.services.sandbox_workspaces import find_workflow_workspace
from pipelit.store import Store

HEADING = "## Environment Capabilities"
KEPT_SECONDS = 600.0
"""How long a look at the machine counts; it starts processes."""


class SandboxEnvironment:
    """Describes workspaces. The machine is looked at once for all that ask meanwhile."""

    def __init__(self, store: Store, look: Callable[[], Awaitable[Findings]]) -> None:
        self._store = store
        self._look = look
        self._looking = trio.Lock()
        self._found: Findings | None = None
        self._until = 0.0

    async def describe(self, workflow_id: int, workspace_id: int, skills: Sequence[str]) -> str:
        """Return the block for a system prompt; nothing if the workflow has no such workspace.

        Args:
            skills: names of the folders of attached skills.
        """
        find = partial(find_workflow_workspace, workflow_id=workflow_id, workspace_id=workspace_id)
        row = await self._store.read(find)
        if row is None:
            return ""
        return write(await self._findings(), allow_network=row.allow_network, skills=skills)

    async def _findings(self) -> Findings:
        async with self._looking:
            if self._found is None or trio.current_time() >= self._until:
                self._found = await self._look()
                self._until = trio.current_time() + KEPT_SECONDS
            return self._found


def write(found: Findings, *, allow_network: bool, skills: Sequence[str]) -> str:
    """Return the capability block. Pure."""
    runtimes = [
        f"{name} {found.versions.get(name, '')}".strip()
        for name in RUNTIMES
        if name in found.programs
    ]
    programs = [name for name in (*TIER_1, *TIER_2) if name in found.programs]
    lines = [
        HEADING,
        f"Runtimes: {', '.join(runtimes) or 'none'}",
        f"Shell tools: {', '.join(programs) or 'none'}",
        f"Network: {'DNS, HTTP' if allow_network else 'no outbound access'}",
        "Filesystem: workspace writable, /tmp writable",
    ]
    if skills:
        folders = ", ".join(f"/.skill_providers/{name}" for name in skills)
        lines.append(f"Skill providers (read-only): {folders}")
    return "\n".join(lines)

"""What an agent is told of its sandbox. Contract: engine.md §22.7."""

from functools import partial

import pytest
import trio
from sqlalchemy import insert

from pipelit.services.environment import Findings
from pipelit.services.sandbox_environment import SandboxEnvironment, write
from pipelit.store.schema import workspaces
from tests.kit.tools import ADA, MAIN, OTHER, Bench, bench

__all__ = ["bench"]

FOUND = Findings(
    os="Linux",
    arch="x86_64",
    container=None,
    programs={"python3": "/usr/bin/python3", "node": "/usr/bin/node", "bash": "/b", "git": "/g"},
    versions={"python3": "3.11.2"},
    sandbox_problem="",
)
BLOCK = """\
## Environment Capabilities
Runtimes: python3 3.11.2, node
Shell tools: bash, git
Network: no outbound access
Filesystem: workspace writable, /tmp writable"""


@pytest.mark.parametrize(
    ("allow_network", "skills", "expected"),
    [
        (False, (), BLOCK),
        (True, (), BLOCK.replace("no outbound access", "DNS, HTTP")),
        (
            False,
            ("pr-review", "notes"),
            f"{BLOCK}\nSkill providers (read-only): /.skill_providers/pr-review,"
            " /.skill_providers/notes",
        ),
    ],
)
def test_the_block_has_the_lines_of_the_contract(allow_network, skills, expected):
    assert write(FOUND, allow_network=allow_network, skills=skills) == expected


async def test_only_workspaces_of_the_owner_are_described(bench: Bench) -> None:
    """The machine is looked at once for all."""
    looks = []

    async def look() -> Findings:
        looks.append(1)
        await trio.lowlevel.checkpoint()
        return FOUND

    row = {"id": 5, "owner_id": ADA, "name": "mine", "path": "/x", "env_vars": []}
    await bench.change(insert(workspaces).values(**row, created_at=bench.clock.now()))
    environment = SandboxEnvironment(bench.store, look)
    said: dict[int, str] = {}

    async def describe(workflow_id: int) -> None:
        said[workflow_id] = await environment.describe(workflow_id, 5, ())

    async with trio.open_nursery() as nursery:
        for workflow_id in (MAIN, OTHER):
            nursery.start_soon(partial(describe, workflow_id))
    await describe(MAIN)

    assert said == {MAIN: BLOCK, OTHER: ""}
    assert len(looks) == 1

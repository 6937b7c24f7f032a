"""Many runs at once, cancelled and killed at any moment: the records of each stay whole."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.kit.api import Api, calling
from tests.kit.server_process import ServerProcess, free_port
from tests.reliability.outside import Outside, outside
from tests.reliability.records import check_records
from tests.reliability.workflows import build_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STORM = 60
WRITERS = 10
KILLS = (8, 22)
"""The server is killed when the model was asked so many times."""


async def ended(api: Api, executions: list[str]) -> list[Any]:
    """Wait until all have ended; return their details, with their records checked."""
    details = []
    for execution_id in executions:
        detail = await api.wait_end(execution_id, seconds=30)
        check_records(detail, await api.events(execution_id))
        details.append(detail)
    return details


async def test_runs_that_are_cancelled_at_any_moment_stay_whole(tmp_path: Path) -> None:
    """Chats and manual runs of every kind, a third of them cancelled at some time."""
    dice = random.Random(20261124)
    plan = [
        (number, dice.choice(("writers", "fetchers", "pairs", "talk", "talk")), dice.random())
        for number in range(STORM)
    ]
    executions: list[str] = []
    cancelled: list[str] = []

    async def run(api: Api, number: int, workflow: str, chance: float) -> None:
        start = api.chat(workflow, f"x{number}") if workflow == "talk" else None
        execution_id = await (start or api.run(workflow, text=f"x{number}"))
        executions.append(execution_id)
        if chance < 1 / 3:
            for _ in range(int(chance * 30)):
                await api.show(execution_id)  # something that takes a while
            answer = await api.post(f"/executions/{execution_id}/cancel/")
            if answer["status"] == "cancelled":
                cancelled.append(execution_id)

    async with outside() as world:
        server = ServerProcess(tmp_path, free_port(), {"PIPELIT_EGRESS_ALLOW": world.web_address})
        async with calling(server.url) as api, server.run() as process:
            await api.setup()
            await build_all(api, world)
            limit = trio.CapacityLimiter(30)

            async def limited(*step: Any) -> None:
                async with limit:
                    await run(api, *step)

            async with trio.open_nursery() as nursery:
                for step in plan:
                    nursery.start_soon(limited, *step)
            details = await ended(api, executions)
            history = await api.get("/workflows/talk/chat/history?limit=1000")
            assert await server.stop(process) == 0

    statuses = {detail["execution_id"]: detail["status"] for detail in details}
    assert {one for one, status in statuses.items() if status == "cancelled"} == set(cancelled)
    assert set(statuses.values()) == {"completed", "cancelled"}
    roles = Counter(message["role"] for message in history["messages"])
    talks = [d for d in details if d["workflow_slug"] == "talk"]
    assert roles["user"] == len(talks)
    assert roles["assistant"] == sum(d["status"] == "completed" for d in talks)
    assert '"actor_crashed"' not in server.log.read_text()


async def until_asked(world: Outside, times: int) -> None:
    while world.asked.total() < times:
        await world.wait_change()


async def test_runs_that_are_killed_at_any_moment_complete(tmp_path: Path) -> None:
    """Two kills while ten runs make their way through two agents and a tool."""
    async with outside() as world:
        server = ServerProcess(tmp_path, free_port())
        executions: list[str] = []
        async with calling(server.url) as api:
            for number, asked in enumerate(KILLS):
                async with server.run() as process:
                    if not number:
                        await api.setup()
                        await build_all(api, world)
                        executions = [
                            await api.run("writers", text=f"a{run}") for run in range(WRITERS)
                        ]
                    with trio.fail_after(20):
                        await until_asked(world, asked)
                    process.kill()
                    await process.wait()
            async with server.run() as process:
                details = await ended(api, executions)
                assert await server.stop(process) == 0

    outputs = [detail["final_output"] for detail in details]
    assert outputs == [{"output": f"second well a{run}"} for run in range(WRITERS)]
    assert all(1 <= times <= 1 + len(KILLS) for times in world.asked.values())
    assert world.asked.keys() == {
        (f"a{run}", node, step)
        for run in range(WRITERS)
        for node, step in (("first", 1), ("first", 2), ("second", 1))
    }

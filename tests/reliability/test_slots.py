"""How many executions run at once. Contract: engine.md §7.2."""

from pathlib import Path

import pytest

from tests.kit.api import calling
from tests.kit.server_process import ServerProcess, free_port
from tests.reliability.outside import outside
from tests.reliability.workflows import build_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def test_executions_wait_for_a_slot_in_order_of_creation(tmp_path: Path) -> None:
    """Two run at once; a chat message that waits for its session takes no slot from anybody."""
    held = {("x1", "first", 1), ("x2", "think", 1), ("x4", "first", 1), ("x5", "first", 1)}
    async with outside(held) as world:
        server = ServerProcess(tmp_path, free_port(), {"PIPELIT_MAX_CONCURRENT_EXECUTIONS": "2"})
        async with calling(server.url) as api, server.run() as process:
            await api.setup()
            await build_all(api, world)
            x1 = await api.run("writers", text="x1")
            x2 = await api.chat("talk", "x2")
            x3 = await api.chat("talk", "x3")
            x4 = await api.run("writers", text="x4")
            x5 = await api.run("writers", text="x5")

            async def statuses() -> list[str]:
                return [(await api.show(one))["status"] for one in (x1, x2, x3, x4, x5)]

            await world.wait_asked(("x1", "first", 1), ("x2", "think", 1))
            assert await statuses() == ["running", "running", "pending", "pending", "pending"]

            world.release(("x1", "first", 1))
            await api.wait_end(x1)
            await world.wait_asked(("x4", "first", 1))
            assert await statuses() == ["completed", "running", "pending", "running", "pending"]

            await api.post(f"/executions/{x4}/cancel/")
            await world.wait_asked(("x5", "first", 1))
            assert await statuses() == ["completed", "running", "pending", "cancelled", "running"]

            world.release()
            for one in (x2, x3, x5):
                assert (await api.wait_end(one))["status"] == "completed"
            assert await server.stop(process) == 0

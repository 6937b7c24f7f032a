"""Starting, resting, stopping: time to ready, idle memory, a cancel that goes down a tree."""

import time
from pathlib import Path

import trio
from rig.ends import Ends
from rig.figures import Row, Series, Tell
from rig.http import Connection
from rig.provider import build_agent, provider
from rig.server import Server, build, serving

OPEN_RUNS = 10_000
TREE = 50
_ENVIRON = {"PIPELIT_MAX_CONCURRENT_EXECUTIONS": "20000"}


async def measure(directory: Path, seconds: float, tell: Tell) -> None:
    """Tell the rows."""
    async with serving(directory) as server:
        tell(Row("cold start to ready", (("", server.ready_seconds, " s"),)))
        tell(Row("idle memory", (("", server.memory_mb(), " MiB"),)))
        connection = await server.connect()
        async with provider(delay=600) as url:
            await build_agent(connection, "sleeper", url)
            tell(await _cancel_tree(server, connection))
        nap = ("wait", {"extra_config": {"duration": 1, "unit": "hours"}})
        nodes = {"start": ("trigger_manual", {}), "nap": nap}
        await build(connection, "nap", nodes, "start -> nap")
        await connection.call("PATCH", "/api/v1/workflows/nap/", {"max_execution_seconds": 86_400})
        open_runs = OPEN_RUNS if seconds >= 10 else OPEN_RUNS // 10
        await _start_naps(server, open_runs)
        key = server.key
    async with serving(directory, key=key, environ=_ENVIRON) as server:
        ready = (("", server.ready_seconds, " s"),)
        tell(Row(f"restart to ready, {open_runs:,} open runs", ready))


async def _cancel_tree(server: Server, connection: Connection) -> Row:
    """Cancel a run of which fifty children ask a model."""
    steps = {
        f"child{number}": ("workflow", {"extra_config": {"target_workflow": "sleeper"}})
        for number in range(TREE)
    }
    links = ", ".join(f"start -> {child}" for child in steps)
    await build(connection, "tree", {"start": ("trigger_manual", {})} | steps, links)
    series = Series()
    async with Ends.listen(server, ["tree"]) as ends:
        for _ in range(3):
            answer = await connection.post("/workflows/tree/execute/", {"text": "go"})
            execution_id = answer["execution_id"]
            with trio.fail_after(60):
                while not await _all_run(connection):  # noqa: ASYNC110 - another process
                    await trio.sleep(0.1)
            begun = time.perf_counter()
            await connection.post(f"/executions/{execution_id}/cancel/")
            series.seconds.append(time.perf_counter() - begun)
            await ends.wait(execution_id, end="execution_cancelled")
    return Row(f"cancel a tree of {TREE}", (("p50", series.at(0.5), " ms"),))


async def _all_run(connection: Connection) -> bool:
    page = await connection.get("/executions/?status=running&limit=1")
    return bool(page["total"] > TREE)


async def _start_naps(server: Server, runs: int) -> None:
    async def post(connection: Connection) -> None:
        for _ in range(runs // 20):
            await connection.post("/workflows/nap/execute/", {"text": "go"})

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(post, await server.connect())

"""Many viewers of one workflow: events delivered per second, single and in batches."""

import time
from pathlib import Path

import trio
from rig.figures import Row, Tell
from rig.http import Connection
from rig.server import Server, build, serving
from rig.ws import Socket

VIEWERS = 1_000
CHAIN = 10


async def measure(directory: Path, seconds: float, tell: Tell) -> None:
    """Tell the rows."""
    async with serving(directory) as server:
        connection = await server.connect()
        nodes = {"start": ("trigger_manual", {})} | {
            f"n{number}": ("calculator", {"extra_config": {"expression": "1 + 1"}})
            for number in range(CHAIN)
        }
        links = [f"n{number} -> n{number + 1}" for number in range(CHAIN - 1)]
        await build(connection, "seen", nodes, ", ".join(["start -> n0", *links]))
        for batched in (False, True):
            tell(await _deliver(server, connection, batched=batched, seconds=seconds))


async def _deliver(server: Server, connection: Connection, *, batched: bool, seconds: float) -> Row:
    """Run the chain again and again, as fast as the viewers get everything."""
    sockets = [await Socket.open(server.port, server.key) for _ in range(VIEWERS)]
    for socket in sockets:
        if batched:
            await socket.batch()
        await socket.subscribe("workflow:seen")
    delivered = finished = 0
    all_seen = trio.Event()

    async def watch(socket: Socket) -> None:
        nonlocal delivered, finished, all_seen
        async for frame in socket.frames():
            delivered += frame.count(b'"channel"')
            ends = frame.count(b'"execution_completed"')
            finished += ends
            if ends and finished % VIEWERS == 0:
                all_seen.set()

    async with trio.open_nursery() as nursery:
        for socket in sockets:
            nursery.start_soon(watch, socket)
        begun, cpu = time.perf_counter(), server.cpu_seconds()
        while time.perf_counter() < begun + seconds:
            all_seen = trio.Event()
            await connection.post("/workflows/seen/execute/", {"text": "go"})
            with trio.fail_after(60):
                await all_seen.wait()
        elapsed, cpu = time.perf_counter() - begun, server.cpu_seconds() - cpu
        nursery.cancel_scope.cancel()
    for socket in sockets:
        await socket.aclose()
    kind = "batched" if batched else "single frames"
    cost = cpu / max(delivered, 1)
    figures = (("", delivered / elapsed, " deliveries/s"), ("cpu", cost * 1e6, " us each"))
    return Row(f"{VIEWERS:,} viewers, {kind}", figures, cost * 1000)

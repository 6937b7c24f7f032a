"""Agents: what a run adds to the time of its model, many runs parked on a slow one, streaming."""

import time
from pathlib import Path

import trio
from rig.ends import Ends
from rig.figures import Row, Series, Tell
from rig.http import Connection
from rig.load import drive, drive_at
from rig.provider import build_agent, provider
from rig.server import Server, build, serving
from rig.ws import Socket

MODEL_SECONDS = 0.05
PARKED = 2_000
"""Runs on a slow model; ten thousand in the long form."""
SOCKETS = 200
PIECES = 100


async def measure(directory: Path, seconds: float, tell: Tell) -> None:
    """Tell the rows."""
    environ = {"PIPELIT_MAX_CONCURRENT_EXECUTIONS": "20000"}
    async with serving(directory, environ=environ) as server:
        connection = await server.connect()
        async with provider(delay=MODEL_SECONDS) as url:
            await build_agent(connection, "agent", url)
            await _overhead(server, seconds, tell)
        async with provider(delay=4, pieces=PIECES, pause=0.02) as url:
            await build_agent(connection, "talker", url)
            tell(await _streaming(server))
        async with provider(delay=600) as url:
            await build_agent(connection, "sleeper", url)
            parked = PARKED if seconds < 10 else 10_000
            await _parked(server, connection, parked, seconds, tell)


async def _overhead(server: Server, seconds: float, tell: Tell) -> None:
    async with Ends.listen(server, ["agent"]) as ends:

        async def run(_: int, connection: Connection) -> None:
            answer = await connection.post("/workflows/agent/execute/", {"text": "go"})
            await ends.wait(answer["execution_id"])

        model = f"{MODEL_SECONDS * 1000:.0f} ms model"
        row = await drive(f"agent, {model}, alone", server, run, clients=1, seconds=seconds)
        tell(row)
        tell(_above(row))
        name = f"agent, {model}, 64 people, a run each second"
        row = await drive_at(name, server, run, per_second=64, seconds=seconds)
        tell(row)
        tell(_above(row))
        for clients in (64, 500):
            name = f"agent, {model}, {clients} without a pause"
            tell(await drive(name, server, run, clients=clients, seconds=seconds))


def _above(row: Row) -> Row:
    return Row("  above the model", (("p50", row.figures[1][1] - MODEL_SECONDS * 1000, " ms"),))


async def _streaming(server: Server) -> Row:
    """Have one agent talk to many sockets, and count what arrives."""
    connection = await server.connect()
    answer = await connection.post("/workflows/talker/execute/", {"text": "go"})
    channel = f"execution:{answer['execution_id']}"
    arrived, first, last = 0, 0.0, 0.0
    delays = Series()

    async def listen(socket: Socket) -> None:
        nonlocal arrived, first, last
        async for event in socket.events():
            if event["type"] == "chat_delta":
                last = time.perf_counter()
                first = first or last
                arrived += 1
                delays.seconds.append(time.time() - event["timestamp"])
            elif event["type"] == "execution_completed":
                return

    sockets = [await Socket.open(server.port, server.key) for _ in range(SOCKETS)]
    for socket in sockets:
        await socket.subscribe(channel)
    cpu = server.cpu_seconds()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for socket in sockets:
                nursery.start_soon(listen, socket)
    cpu = server.cpu_seconds() - cpu
    for socket in sockets:
        await socket.aclose()
    return Row(
        f"stream to {SOCKETS} sockets",
        (
            ("", arrived / (SOCKETS * PIECES) * 100, " % arrived"),
            ("", arrived / (last - first), " pieces/s"),
            ("p50", delays.at(0.5), " ms"),
            ("p99", delays.at(0.99), " ms"),
            ("cpu", cpu / max(arrived, 1) * 1e6, " us each"),
        ),
        cpu / max(arrived, 1) * 1000,
    )


async def _parked(
    server: Server, connection: Connection, parked: int, seconds: float, tell: Tell
) -> None:
    say = ("reply_chat", {"extra_config": {"message": "hello"}})
    nodes = {"start": ("trigger_manual", {}), "say": say}
    await build(connection, "short", nodes, "start -> say")
    async with Ends.listen(server, ["short"]) as ends:

        async def run(_: int, connection: Connection) -> None:
            answer = await connection.post("/workflows/short/execute/", {"text": "go"})
            await ends.wait(answer["execution_id"])

        tell(await drive("short runs, nothing parked", server, run, clients=4, seconds=seconds))
        before = server.memory_mb()
        await _park(server, parked)
        more = server.memory_mb() - before
        figures = (("", more, " MiB above idle"), ("", more / parked * 1024, " KiB each"))
        tell(Row(f"{parked:,} runs parked on a model", figures))
        tell(await drive(f"short runs, {parked:,} parked", server, run, clients=4, seconds=seconds))


async def _park(server: Server, parked: int) -> None:
    async def post(connection: Connection, runs: int) -> None:
        for _ in range(runs):
            await connection.post("/workflows/sleeper/execute/", {"text": "go"})

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(post, await server.connect(), parked // 20)
    connection = await server.connect()
    with trio.fail_after(120):
        while (await connection.get("/executions/?status=pending&limit=1"))["total"]:  # noqa: ASYNC110
            # another process: there is nothing to wait on
            await trio.sleep(0.2)
    await trio.sleep(3)  # for the calls to be under way

"""Runs of small workflows: from the chat message to the durable 200, and to the end of the run.

Usage: python ops/bench/runs.py [--seconds S]
"""

import argparse
import tempfile
import time
from pathlib import Path

import trio
from rig.ends import Ends
from rig.figures import Series, timed
from rig.http import Connection
from rig.server import Server, build, serving
from rig.ws import Socket

SAY = ("reply_chat", {"extra_config": {"message": "{{ trigger.text }}"}})


async def accept_to_done(server: Server, clients: int, seconds: float) -> None:
    """Each client has a chat of its own and waits for the end before the next message."""
    socket = await Socket.open(server.port, server.key)
    await socket.batch()
    for index in range(clients):
        await socket.subscribe(f"workflow:chat-{index}")
    ends = Ends(socket)
    accepted, done = Series(), Series()

    async def client(index: int, connection: Connection) -> None:
        while time.perf_counter() < until:
            begun = time.perf_counter()
            answer = await connection.post(f"/workflows/chat-{index}/chat/", {"text": "hello"})
            accepted.seconds.append(time.perf_counter() - begun)
            done.seconds.append(await ends.wait(answer["execution_id"]) - begun)

    connections = [await server.connect() for _ in range(clients)]
    async with trio.open_nursery() as outer:
        outer.start_soon(ends.listen)
        cpu, begun = server.cpu_seconds(), time.perf_counter()
        until = begun + seconds
        async with trio.open_nursery() as nursery:
            for index, connection in enumerate(connections):
                nursery.start_soon(client, index, connection)
        elapsed, cpu = time.perf_counter() - begun, server.cpu_seconds() - cpu
        print(timed(f"accepted, {clients} clients", accepted, elapsed, 0))
        print(timed(f"accepted to done, {clients} clients", done, elapsed, cpu))
        outer.cancel_scope.cancel()
    for connection in connections:
        await connection.aclose()
    await socket.aclose()


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(dir=".") as directory:
        async with serving(Path(directory)) as server:
            connection = await server.connect()
            for index in range(64):
                nodes = {"in": ("trigger_chat", {}), "say": SAY}
                await build(connection, f"chat-{index}", nodes, "in -> say")
            print(f"ready after {server.ready_seconds:.2f} s, idle {server.memory_mb():.0f} MiB")
            for clients in (1, 16, 64):
                await accept_to_done(server, clients, seconds)
            print(f"memory {server.memory_mb():.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    trio.run(main, parser.parse_args().seconds)

"""Chains of ten nodes: durable node commits per second across runs, and from node to node in one.

Usage: python ops/bench/chain.py [--seconds S]
"""

import argparse
import tempfile
import time
from pathlib import Path

import trio
from rig.ends import Ends
from rig.figures import Row, Series, timed
from rig.http import Connection
from rig.server import Server, build, serving
from rig.ws import Socket

LENGTH = 10


async def build_chain(connection: Connection, slug: str) -> None:
    nodes = {
        f"n{i}": ("calculator", {"extra_config": {"expression": "1 + 1"}}) for i in range(LENGTH)
    }
    edges = ", ".join(f"n{i} -> n{i + 1}" for i in range(LENGTH - 1))
    await build(
        connection, slug, {"start": ("trigger_manual", {})} | nodes, f"start -> n0, {edges}"
    )


async def run_chains(server: Server, clients: int, seconds: float) -> None:
    socket = await Socket.open(server.port, server.key)
    await socket.batch()
    await socket.subscribe("workflow:chain")
    ends = Ends(socket)
    done = Series()

    async def client(connection: Connection) -> None:
        while time.perf_counter() < until:
            begun = time.perf_counter()
            answer = await connection.post("/workflows/chain/execute/", {"text": "go"})
            done.seconds.append(await ends.wait(answer["execution_id"]) - begun)

    connections = [await server.connect() for _ in range(clients)]
    async with trio.open_nursery() as outer:
        outer.start_soon(ends.listen)
        cpu, begun = server.cpu_seconds(), time.perf_counter()
        until = begun + seconds
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(client, connection)
        elapsed, cpu = time.perf_counter() - begun, server.cpu_seconds() - cpu
        print(timed(f"chain of {LENGTH}, {clients} clients", done, elapsed, cpu))
        rate = len(done.seconds) * LENGTH / elapsed
        print(Row("  nodes", (("", rate, "/s"), ("p50", done.at(0.5) / LENGTH, " ms"))))
        outer.cancel_scope.cancel()
    for connection in connections:
        await connection.aclose()
    await socket.aclose()


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(dir=".") as directory:
        async with serving(Path(directory)) as server:
            await build_chain(await server.connect(), "chain")
            for clients in (1, 16, 64):
                await run_chains(server, clients, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    trio.run(main, parser.parse_args().seconds)

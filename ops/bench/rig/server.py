"""The server as an operator starts it: a child process on a real file, with an admin."""

import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from rig.http import Connection, Refused

START_SECONDS = 60.0
STOP_SECONDS = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running server with one admin."""

    port: int
    pid: int
    key: str
    ready_seconds: float

    def cpu_seconds(self) -> float:
        """Processor time the server has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self) -> float:
        """Resident memory now, in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise ValueError("the server is gone")

    async def connect(self) -> Connection:
        """Open one connection of the admin."""
        return await Connection.open(self.port, self.key)


@asynccontextmanager
async def serving(
    directory: Path, *, key: str = "", environ: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """Run a server on *directory* for the block. Without *key* it gets its first admin."""
    port = _free_port()
    kept = {name: value for name, value in os.environ.items() if "PIPELIT" not in name}
    begun = time.perf_counter()
    with (directory / "server.log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            [
                *(sys.executable, "-m", "pipelit", "serve"),
                *("--port", str(port), "--data-dir", str(directory / "data")),
            ],
            stdout=log,
            stderr=log,
            env=kept | dict(environ or {}),
        )
    try:
        await _wait_ready(process, port)
        ready = time.perf_counter() - begun
        yield Server(port, process.pid, key or await _set_up(port), ready)
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(STOP_SECONDS):
            await process.wait()
    finally:
        if process.poll() is None:
            process.kill()


async def build(
    connection: Connection,
    slug: str,
    nodes: Mapping[str, tuple[str, Mapping[str, Any]]],
    edges: str,
) -> None:
    """Create a workflow. Edges: `a -> b` or `a -> b : label`, divided by commas."""
    await connection.post("/workflows/", {"name": slug, "slug": slug})
    for node_id, (component_type, config) in nodes.items():
        node = {"node_id": node_id, "component_type": component_type, "config": config}
        await connection.post(f"/workflows/{slug}/nodes/", node)
    for edge in edges.split(", "):
        pair, _, label = edge.partition(" : ")
        source, target = pair.split(" -> ")
        body = {"source_node_id": source, "target_node_id": target, "edge_label": label}
        await connection.post(f"/workflows/{slug}/edges/", body)


async def _wait_ready(process: trio.Process, port: int) -> None:
    with trio.fail_after(START_SECONDS):
        while process.poll() is None:
            try:
                connection = await Connection.open(port)
                await connection.call("GET", "/ready")
            except (OSError, Refused):  # not there yet, or not ready yet
                await trio.sleep(0.02)
            else:
                await connection.aclose()
                return
    raise RuntimeError("the server ended instead of getting ready; see server.log")


async def _set_up(port: int) -> str:
    connection = await Connection.open(port)
    account = {"username": "ada", "password": "correct horse battery"}
    answer = await connection.post("/auth/setup/", account)
    await connection.aclose()
    return str(answer["key"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Runs of many nodes: a chain, a fan-out with its join, a loop."""

from pathlib import Path
from typing import Any

from rig.ends import Ends
from rig.figures import Row, Tell
from rig.http import Connection
from rig.load import Operation, drive
from rig.server import Server, build, serving

CHAIN = 10
FAN = 50
ITEMS = 1000
_START: dict[str, tuple[str, Any]] = {"start": ("trigger_manual", {})}
_SUM = ("calculator", {"extra_config": {"expression": "1 + 1"}})


async def measure(directory: Path, seconds: float, tell: Tell) -> None:
    """Tell the rows."""
    async with serving(directory) as server:
        connection = await server.connect()
        await _build_chain(connection)
        await _build_fan(connection)
        await _build_loop(connection)
        async with Ends.listen(server, ["chain", "fan", "loop"]) as ends:
            for clients in (1, 16, 64):
                run = _runner(ends, "chain")
                name = f"chain of {CHAIN}, {clients} clients"
                await _per_node(name, server, run, CHAIN, clients, seconds, tell)
            run = _runner(ends, "fan")
            await _per_node(f"1 to {FAN} to join", server, run, FAN + 1, 1, seconds, tell)
            run = _runner(ends, "loop")
            await _per_node(f"loop of {ITEMS}", server, run, ITEMS, 1, seconds, tell)


def _runner(ends: Ends, slug: str) -> Operation:
    async def run(_: int, connection: Connection) -> None:
        body = {"text": "go", "payload": {"items": list(range(ITEMS))}}
        answer = await connection.post(f"/workflows/{slug}/execute/", body)
        await ends.wait(answer["execution_id"])

    return run


async def _per_node(
    name: str, server: Server, run: Operation, nodes: int, clients: int, seconds: float, tell: Tell
) -> None:
    row = await drive(name, server, run, clients=clients, seconds=seconds)
    tell(row)
    rate, p50 = row.figures[0][1], row.figures[1][1]
    tell(Row("  each node", (("", rate * nodes, "/s"), ("p50", p50 / nodes, " ms"))))


async def _build_chain(connection: Connection) -> None:
    nodes = {f"n{number}": _SUM for number in range(CHAIN)}
    links = [f"n{number} -> n{number + 1}" for number in range(CHAIN - 1)]
    await build(connection, "chain", _START | nodes, ", ".join(["start -> n0", *links]))


async def _build_fan(connection: Connection) -> None:
    nodes = {f"n{number}": _SUM for number in range(FAN)} | {"join": ("merge", {})}
    links = [f"start -> n{number}, n{number} -> join" for number in range(FAN)]
    await build(connection, "fan", _START | nodes, ", ".join(links))


async def _build_loop(connection: Connection) -> None:
    each = {"extra_config": {"source_node": "start", "field": "payload.items"}}
    nodes = {"each": ("loop", each), "sum": _SUM}
    edges = "start -> each, each -> sum : loop_body, sum -> each : loop_return"
    await build(connection, "loop", _START | nodes, edges)

"""Clients that each do one thing after another for a while, and what that costs the server."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from rig.figures import Row, Series, timed
from rig.http import Connection, Refused
from rig.server import Server

Operation: TypeAlias = Callable[[int, Connection], Awaitable[None]]
"""What client number N does over its connection, again and again."""


async def drive(
    name: str, server: Server, operation: Operation, *, clients: int, seconds: float
) -> Row:
    """Have *clients* repeat *operation* for *seconds*; count what the server refuses as errors."""
    series = Series()

    async def client(number: int, connection: Connection) -> None:
        while time.perf_counter() < until:
            begun = time.perf_counter()
            try:
                await operation(number, connection)
            except (Refused, trio.TooSlowError):
                series.errors += 1
            else:
                series.seconds.append(time.perf_counter() - begun)

    connections = [await server.connect() for _ in range(clients)]
    cpu, start = server.cpu_seconds(), time.perf_counter()
    until = start + seconds
    async with trio.open_nursery() as nursery:
        for number, connection in enumerate(connections):
            nursery.start_soon(client, number, connection)
    elapsed, cpu = time.perf_counter() - start, server.cpu_seconds() - cpu
    for connection in connections:
        await connection.aclose()
    return timed(name, series, elapsed, cpu)


async def drive_at(
    name: str, server: Server, operation: Operation, *, per_second: int, seconds: float
) -> Row:
    """Begin *operation* at a fixed rate, however long each takes."""
    series = Series()
    free = [await server.connect() for _ in range(32)]
    connections = list(free)

    async def once(number: int) -> None:
        begun = time.perf_counter()
        connection = free.pop() if free else await server.connect()
        try:
            await operation(number, connection)
        except (Refused, trio.TooSlowError):
            series.errors += 1
        else:
            series.seconds.append(time.perf_counter() - begun)
        free.append(connection)

    cpu, start = server.cpu_seconds(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(int(per_second * seconds)):
            await trio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
            nursery.start_soon(once, number)
    elapsed, cpu = time.perf_counter() - start, server.cpu_seconds() - cpu
    for connection in {*free, *connections}:
        await connection.aclose()
    return timed(name, series, elapsed, cpu)

"""What the actor runtime costs, beside a bare Trio memory channel in the same run.

Usage: python ops/bench/actors.py [--repeat N]. Counts processor time, so a shared
machine disturbs it little; prints the best of N runs per line.
"""

import argparse
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from pipelit.actors.runtime import (
    Actor,
    ChildSpec,
    Mailbox,
    Message,
    Request,
    Restart,
    SupervisorSpec,
    System,
    open_system,
)

TELLS = 100_000
ASKS = 20_000
ACTORS = 2_000


class Tick(Message, frozen=True):
    """Count it."""


class Count(Request[int], frozen=True):
    """Reply: how many ticks so far."""


class Counter(Actor[Tick | Count]):
    """Does as little as an actor can."""

    def __init__(self) -> None:
        self.ticks = 0

    async def receive(self, message: Tick | Count) -> None:
        """Count, or say how many."""
        match message:
            case Tick():
                self.ticks += 1
            case Count():
                self.reply(message, self.ticks)


def spec(name: str) -> ChildSpec[Tick | Count]:
    return ChildSpec(
        id=name,
        kind="bench",
        start=Counter,
        restart=Restart.TEMPORARY,
        mailbox=Mailbox(TELLS + 1),
    )


async def tells(system: System) -> int:
    ref = system.start_child("/", spec("tells"))
    for _ in range(TELLS):
        ref.tell(Tick())
    assert await ref.ask(Count(), timeout=60) == TELLS
    ref.stop()
    await ref.wait_stopped()
    return TELLS


async def asks(system: System, timeout: float = 5.0) -> int:
    ref = system.start_child("/", spec("asks"))
    for _ in range(ASKS):
        await ref.ask(Count(), timeout)
    ref.stop()
    await ref.wait_stopped()
    return ASKS


async def start_and_ask(system: System) -> int:
    refs = [system.start_child("/", spec(f"a{number}")) for number in range(ACTORS)]
    for ref in refs:
        await ref.ask(Count())
    for ref in refs:
        ref.stop()
    for ref in refs:
        await ref.wait_stopped()
    return ACTORS


async def channel_sends(_system: System) -> int:
    send, receive = trio.open_memory_channel[Tick](TELLS)

    async def read() -> None:
        async with receive:
            async for _ in receive:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async with send:
            for _ in range(TELLS):
                send.send_nowait(Tick())
    return TELLS


async def channel_round_trips(_system: System) -> int:
    there, inbox = trio.open_memory_channel[Count](0)
    back, outbox = trio.open_memory_channel[int](0)

    async def answer() -> None:
        async with inbox, back:
            async for _ in inbox:
                await back.send(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with there, outbox:
            for _ in range(ASKS):
                await there.send(Count())
                await outbox.receive()
    return ASKS


async def tasks(_system: System) -> int:
    async with trio.open_nursery() as nursery:
        for _ in range(ACTORS):
            nursery.start_soon(trio.lowlevel.checkpoint)
    return ACTORS


BENCHES: dict[str, Callable[[System], Awaitable[int]]] = {
    "tell": tells,
    "  channel: send_nowait": channel_sends,
    "ask": asks,
    "ask without deadline": partial(asks, timeout=math.inf),
    "  channel: there and back": channel_round_trips,
    "start, ask, stop an actor": start_and_ask,
    "  nursery: start a task": tasks,
}


async def main(repeat: int) -> None:
    print(f"{'':28}{'per second':>12}{'µs each':>10}")
    async with open_system(SupervisorSpec(id="root")) as system:
        for name, bench in BENCHES.items():
            best = min([await timed(bench, system) for _ in range(repeat)])
            print(f"{name:28}{1 / best:12,.0f}{best * 1e6:10.2f}")


async def timed(bench: Callable[[System], Awaitable[int]], system: System) -> float:
    began = time.process_time()
    count = await bench(system)
    return (time.process_time() - began) / count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    trio.run(main, parser.parse_args().repeat)

"""Somebody else who uses the server while it is attacked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.kit.api import Api

BYSTANDER = "the-run-of-somebody-else"


class Rounds:
    """How often the bystander got what it wanted: an answer of `/health`, and a run to its end."""

    def __init__(self) -> None:
        self._count = 0
        self._news = trio.lowlevel.ParkingLot()
        self.is_over = False

    def add(self) -> None:
        """Count one more."""
        self._count += 1
        self._news.unpark_all()

    async def more(self, rounds: int = 2) -> None:
        """Wait for so many from now on; the first may have begun before."""
        wanted = self._count + rounds
        while self._count < wanted:
            await self._news.park()


@asynccontextmanager
async def undisturbed(api: Api) -> AsyncIterator[Rounds]:
    """Have the bystander use the server during the block, and once more until it succeeds."""
    rounds = Rounds()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_use, api, rounds)
        yield rounds
        rounds.is_over = True


async def _use(api: Api, rounds: Rounds) -> None:
    while True:
        health = await api.http.get("/health")
        assert health.status_code == 200, health.text
        run = await api.run(BYSTANDER, text="still here")
        detail = await api.wait_end(run)
        assert detail["final_output"] == {"output": "still here"}
        if rounds.is_over:
            return
        rounds.add()

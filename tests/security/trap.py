"""An attacker's web server: answers as a test says, and remembers who came."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.kit.http_server import Answer, LocalServer, Seen, serve


@dataclass
class Trap:
    """A running server. `answer` may be changed at any time."""

    server: LocalServer = field(default_factory=LocalServer)
    answer: Callable[[Seen], Answer] = lambda _: Answer(body=b"ok")

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def seen(self) -> list[Seen]:
        return self.server.seen


@asynccontextmanager
async def open_trap(port: int = 0) -> AsyncIterator[Trap]:
    """Serve on a port of the loopback interface; 0 takes a free one."""
    trap = Trap()
    async with serve(lambda seen: trap.answer(seen), port=port) as server:
        trap.server = server
        yield trap

"""A message gateway on a real socket that remembers what it is asked, and none at all."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import trio

from pipelit.net.gateway import Gateway
from pipelit.net.http import HttpClient
from tests.kit.http_server import Answer, Seen, serve

PATIENCE = 10.0


class FakeGateway:
    """Remembers its calls and answers 200, but first, in order, what is in `answers`.

    `only`: the credential whose messages count; others' are taken and forgotten.
    """

    def __init__(self, only: str | None = None) -> None:
        self.only = only
        self.answers: list[Answer] = []
        self.refuse_path: str | None = None
        self.calls: list[tuple[str, str, Any]] = []
        self.tokens: list[str] = []
        self.url = ""
        self._arrived = trio.Event()

    def __call__(self, seen: Seen) -> Answer:
        path = urlsplit(seen.target).path
        body = json.loads(seen.body) if seen.body else None
        if self.only is not None and (body or {}).get("credential_id") != self.only:
            return Answer(body=b"{}")
        self.calls.append((seen.method, path, body))
        self.tokens.append(seen.headers.get("authorization", ""))
        self._arrived.set()
        self._arrived = trio.Event()
        if path == self.refuse_path:
            return refusal(500)
        return self.answers.pop(0) if self.answers else Answer(body=b"{}")

    async def wait_calls(self, count: int) -> list[tuple[str, str, Any]]:
        """Wait until so many calls came, and return all."""
        with trio.fail_after(PATIENCE):
            while len(self.calls) < count:
                await self._arrived.wait()
        return self.calls


def refusal(status: int, body: Any = None) -> Answer:
    """Return an answer that refuses."""
    return Answer(status=status, body=b"" if body is None else json.dumps(body).encode())


@asynccontextmanager
async def gateway_server(port: int = 0, *, only: str | None = None) -> AsyncIterator[FakeGateway]:
    """Run a gateway on a port (0: a free one)."""
    gateway = FakeGateway(only)
    async with serve(gateway, port=port) as server:
        gateway.url = server.url
        yield gateway


def no_gateway() -> Gateway:
    """Return what stands for a gateway where none is configured: it calls nobody."""
    return Gateway(cast("HttpClient", None), url="", admin_token="", send_token="")

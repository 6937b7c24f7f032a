"""A model provider under the test's control: real HTTP over a real loopback socket.

Every model call is handed to the test, which answers it in its own time, or never.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from pipelit.llm.loopback import Exchange, Request, serve_http

PATIENCE = 30.0
"""Seconds a test waits for something that is due at once."""


class ModelCall:
    """One model call as the provider received it, and the ways to answer it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._answered = trio.Event()
        self.path = exchange.request.path
        self.headers = exchange.request.headers
        self.body: dict[str, Any] = json.loads(exchange.request.body)

    async def wait_gone(self) -> None:
        """Wait until the client has closed the connection of this call."""
        with trio.fail_after(PATIENCE):
            await self._exchange.gone.wait()

    @property
    def is_gone(self) -> bool:
        return self._exchange.gone.is_set()

    async def respond(self, status: int, body: Any, **headers: str) -> None:
        """Answer with one body: text as it is, anything else as JSON."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        dashed = {name.replace("_", "-"): value for name, value in headers.items()}
        await self._exchange.respond(status, data, headers=dashed)
        self._answered.set()

    async def begin(self) -> None:
        """Begin a stream."""
        await self._exchange.start()

    async def send(self, data: bytes) -> None:
        """Send raw bytes of the stream."""
        await self._exchange.send(data)

    async def send_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Send events; those with a `type` carry it as their name, as Anthropic's do."""
        for event in events:
            name = f"event: {event['type']}\n" if "type" in event else ""
            await self.send(f"{name}data: {json.dumps(event)}\n\n".encode())

    async def end(self) -> None:
        """Complete the stream."""
        await self._exchange.end()
        self._answered.set()

    async def abort(self) -> None:
        """Close the connection in the middle of the answer."""
        await self._exchange.abort()
        self._answered.set()

    async def stream(self, events: Sequence[dict[str, Any]], *, done: bool = True) -> None:
        """Send a whole stream, with `[DONE]` at its end unless told otherwise."""
        await self.begin()
        await self.send_events(events)
        if done:
            await self.send(b"data: [DONE]\n\n")
        await self.end()

    async def say(self, text: str) -> None:
        """Answer with *text* and a usage of 1 and 1 token."""
        await self.stream(
            [
                {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
            ]
        )

    async def wait_answered(self) -> None:
        await self._answered.wait()


class ModelServer:
    """The provider. `url` is its base URL, `requests` everything that came."""

    def __init__(self, address: str, models: Sequence[str]) -> None:
        self.address = address
        self.url = f"{address}/v1"
        self.models: Any = {"data": [{"id": model} for model in models]}
        self.models_status = 200  # 0: never answer
        self.requests: list[Request] = []
        self._client_ports: set[int] = set()
        self._calls_in, self._calls = trio.open_memory_channel[ModelCall](1000)

    async def next_call(self) -> ModelCall:
        """Wait for the next model call."""
        with trio.fail_after(PATIENCE):
            return await self._calls.receive()

    @property
    def connections(self) -> int:
        """How many connections requests have come over."""
        return len(self._client_ports)

    @property
    def waiting_calls(self) -> int:
        """How many calls came that the test has not taken."""
        return self._calls.statistics().current_buffer_used

    async def handle(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        self._client_ports.add(exchange.client_port)
        if exchange.request.method == "GET":
            if not self.models_status:
                await trio.sleep_forever()
            body = b"" if self.models_status == 204 else json.dumps(self.models).encode()
            await exchange.respond(self.models_status, body, headers={"location": "/elsewhere"})
            return
        call = ModelCall(exchange)
        self._calls_in.send_nowait(call)
        await call.wait_answered()


@asynccontextmanager
async def model_server(*models: str, port: int = 0) -> AsyncIterator[ModelServer]:
    """Run a provider that lists *models* (default `demo-1`) and leaves every call to the test."""
    server: list[ModelServer] = []

    async def handle(exchange: Exchange) -> None:
        await server[0].handle(exchange)

    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_http, handle, port=port))
        server.append(ModelServer(address, models or ("demo-1",)))
        yield server[0]
        nursery.cancel_scope.cancel()

"""The outside of a simulated server: threads, models, network, processes.

Each port may be late and may fail, as chance has it, and none works for a process that has died.
What reached the outside is remembered: it is what the auditor compares the server's books with.
"""

import math
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, TypeVar

import trio

from ops.soak.chance import Chance
from ops.soak.history import ModelCall, OutsideCall
from pipelit.engine.expressions import ExpressionFailed, Renderer
from pipelit.engine.messages import MessageUsage, ToolCall
from pipelit.llm.types import ModelRequest, ModelResponse, ProviderError, ProviderSpec
from pipelit.net.egress import EgressPolicy, IPAddress
from pipelit.net.http import HttpClient, HttpError, HttpRequest, HttpResponse
from pipelit.net.resolver import SystemResolver
from pipelit.nodes import process
from pipelit.nodes.worker import WorkerError, WorkerPool
from pipelit.store.errors import StorageUnavailable

T = TypeVar("T")

MODEL = "soak-1"
MICROS_PER_TOKEN = (2, 10)
SPAWNED = "soak-0"
"""The workflow that agents run."""
_COMMIT, _READ = "Writer._commit_in_thread", "_Call.run"
_REPLY = b'{"value": {"sum": 42}, "text": "{\\"sum\\": 42}"}'


class ProcessDied(Exception):
    """The simulated process is dead: nothing that is left of its program has any effect."""


class Life:
    """One process of the server, from its start to its end."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.alive = True
        self.children = 0
        """Child processes that run."""

    def require_alive(self) -> None:
        """Raise `ProcessDied` in code that a dead process would not have run."""
        if not self.alive:
            raise ProcessDied(f"process {self.number} is dead")


class Outside:
    """Everything beyond the server's process. `life` is the process that runs now."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.life = Life(0)
        self.model_calls: list[ModelCall] = []
        self.outside_calls: list[OutsideCall] = []
        self.spawns = 0
        """How many children models asked for."""
        self.tasks: list[str] = []
        """Tasks of an epic that agents may work on."""

    async def run_sync(
        self,
        work: Callable[..., T],
        *args: object,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
        **_: object,
    ) -> T:
        """Stand for `trio.to_thread.run_sync`: same promises, but the loop itself does the work.

        The work happens at one instant; chance puts time before it and after it. A process that
        dies before has not done it, one that dies after has done it and never learns so.
        """
        life, name = self.life, getattr(work, "__qualname__", "")
        limiter = limiter or trio.to_thread.current_default_thread_limiter()
        holder = object()
        await limiter.acquire_on_behalf_of(holder)
        try:
            with trio.CancelScope(shield=not abandon_on_cancel):
                await self.chance.pause("thread", late=0.5)
                life.require_alive()
                self._fail_storage(name)
                result = work(*args)
                await self.chance.pause("thread", late=0.5)
                life.require_alive()
            return result
        finally:
            limiter.release_on_behalf_of(holder)

    def _fail_storage(self, name: str) -> None:
        climate = self.chance.climate
        refuses = _COMMIT in name and self.chance.happens("storage", climate.storage_refuses)
        if refuses or (_READ in name and self.chance.happens("storage", climate.read_fails)):
            raise StorageUnavailable

    async def run_process(
        self,
        command: Sequence[str],
        *,
        seconds: float,
        environ: Mapping[str, str],
        descriptors: Sequence[int] = (),
        keep: int = process.MAX_OUTPUT,
    ) -> process.Ended:
        """Stand for `pipelit.nodes.process.run`: a snippet in a sandbox that adds up to 42."""
        life, chance = self.life, self.chance
        life.children += 1
        try:
            with trio.move_on_after(seconds) as scope:
                await chance.pause("process", usual=0.3, late=60.0)
            if scope.cancelled_caught:
                raise process.TimedOut(f"timed out after {seconds:g} seconds")
            life.require_alive()
            # In this order the sandbox opens them: bubblewrap's status, then the result.
            status, result = descriptors[0], descriptors[1]
            os.pwrite(status, b'{"exit-code": 0}', 0)
            if chance.happens("process", chance.climate.process_fails):
                return process.Ended(1, b"", b"the snippet broke", False)
            os.pwrite(result, _REPLY, 0)
            return process.Ended(0, b"", b"", False)
        finally:
            life.children -= 1


class Models:
    """A provider whose answers are made up, and which keeps the books that count."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def get(self, spec: ProviderSpec) -> "Models":
        """Return the provider; there is one for all credentials."""
        return self

    async def complete(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None],
        on_alive: Callable[[], None],
    ) -> ModelResponse:
        """Answer with text or with calls of the tools offered. The system prompt names the run."""
        outside, chance = self._outside, self._outside.chance
        draw, life = chance.stream("model"), outside.life
        life.require_alive()
        run, usage = str(request.messages[0].content).split()[-1], MessageUsage(0, 0, 0)
        try:
            await chance.pause("model", usual=1.5, late=90.0)
            life.require_alive()
            if chance.happens("model", chance.climate.model_fails):
                raise _model_error(draw.choice((429, 500, 400)))
            given, made = draw.randrange(10, 500), draw.randrange(1, 200)
            usage = MessageUsage(given, made, given + made)
        finally:
            outside.model_calls.append(
                ModelCall(
                    execution_id=run,
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                )
            )
        text = f"word {draw.randrange(1000)}"
        asked = sum(message.role == "tool" for message in request.messages)
        if request.tools and asked < 3 and draw.random() < 0.5:
            wanted = tuple(
                ToolCall(f"call_{len(request.messages)}_{index}", *self._arguments(run, request))
                for index in range(draw.randrange(1, 3))
            )
            return ModelResponse(text=draw.choice(("", text)), calls=wanted, usage=usage)
        on_alive()
        on_text(text)
        return ModelResponse(text=text, usage=usage, finish_reason="stop")

    def _arguments(self, run: str, request: ModelRequest) -> tuple[str, dict[str, Any]]:
        draw = self._outside.chance.stream("model")
        name = draw.choice([tool.name for tool in request.tools])
        match name:
            case "calculator":
                return name, {"expression": f"{draw.randrange(99)} * 2"}
            case "http_request":
                return name, {"url": "https://shop.example/price", "method": "POST", "body": "{}"}
            case "spawn_and_await":
                return name, self._child(run)
            case _:
                return name, {}

    def _child(self, run: str) -> dict[str, Any]:
        """Describe a child under a text that no other one has, for a task of an epic or none."""
        outside, draw = self._outside, self._outside.chance.stream("model")
        outside.spawns += 1
        text = f"w{draw.randrange(1, 4)} child {run} call {outside.spawns}"
        child = {"workflow_slug": SPAWNED, "input_text": text}
        if outside.tasks and draw.random() < 0.7:
            child["task_id"] = draw.choice(outside.tasks)
        return child


def _model_error(status: int) -> ProviderError:
    return ProviderError(
        f"provider returned HTTP {status}",
        code="RateLimitError" if status == 429 else "APIStatusError",
        retryable=status != 400,
        status=status,
    )


class Network(HttpClient):
    """The internet as workflows reach it: a shop that takes what it is sent."""

    def __init__(self, outside: Outside) -> None:
        super().__init__(EgressPolicy.parse(()), "workflow", ssl_context=_NO_TLS)
        self._outside = outside

    async def request(self, request: HttpRequest) -> HttpResponse:
        """Answer, or break."""
        outside, chance = self._outside, self._outside.chance
        life = outside.life
        with trio.move_on_after(request.timeout) as scope:
            await chance.pause("network", usual=0.2, late=40.0)
        life.require_alive()
        if scope.cancelled_caught:
            raise HttpError("no complete answer in time", code="TimeoutException")
        key = {name.lower(): value for name, value in request.headers.items()}
        outside.outside_calls.append(OutsideCall(key=key.get("idempotency-key", "")))
        if chance.happens("network", chance.climate.network_fails):
            raise HttpError("connection reset", code="ReadError")
        return HttpResponse(
            status=chance.stream("network").choice((200, 200, 503)),
            headers={"content-type": "application/json"},
            body=b'{"price": 12}',
            truncated=False,
            url=request.url,
        )


_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Names(SystemResolver):
    """A resolver that knows one address for everything."""

    async def resolve(self, host: str) -> tuple[IPAddress, ...]:
        """Return an address of the internet."""
        await trio.lowlevel.checkpoint()
        return (ip_address("93.184.216.34"),)


class Workers(WorkerPool):
    """The pool of children for templates, without children."""

    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self._outside = outside
        self._renderers = {False: Renderer(), True: Renderer(python_literals=True)}

    async def _run(self, job: dict[str, Any]) -> Any:
        life = self._outside.life
        await self._outside.chance.pause("worker", late=1.0)
        life.require_alive()
        renderer = self._renderers[job["python_literals"]]
        try:
            return renderer.render(renderer.parse(job["text"]), job["context"])
        except ExpressionFailed as error:
            raise WorkerError("expression", str(error)) from error


def cost_micros(calls: Sequence[ModelCall], price: tuple[float, float]) -> int:
    """Return what *calls* cost, each rounded on its own as a bill is."""
    return sum(
        math.floor(call.input_tokens * price[0] + call.output_tokens * price[1] + 0.5)
        for call in calls
    )

"""A small pool of child processes for work that nothing else could stop.

Templates with loops and users' regular expressions may run for ever and must not stall the event
loop. Each job has a child for itself; one that is late, or whose caller is cancelled, is killed.
Children start when first needed, know no secret, and none is left after `aclose`.

Contract: engine.md §20.9, operators.md §4.2.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Self, TypeAlias

import msgspec
import trio

from pipelit.errors import PipelitError

POOL_SIZE = 2
JOB_SECONDS = 2.0
START_SECONDS = 30.0
MAX_REPLY_BYTES = 16 * 1024 * 1024

Hold: TypeAlias = Callable[[], AbstractContextManager[object]]

_COMMAND = (sys.executable, "-I", "-m", "pipelit.nodes.worker_main")
_ENVIRONMENT = {"LANG": "C.UTF-8"}  # and nothing of the server's: its secrets are in there


class WorkerError(PipelitError):
    """The job was not done. `kind`: "expression", "pattern", "timeout" or "memory"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class WorkerUnavailable(PipelitError):
    """No child process can be started; nothing is known about the job."""


class WorkerPool:
    """Runs jobs in children, at most *size* at a time; further callers wait their turn.

    Args:
        size: children at most.
        job_seconds: wall time of one job.
        hold: entered while a child is at work; tests stop their mock clock there.
    """

    def __init__(
        self,
        *,
        size: int = POOL_SIZE,
        job_seconds: float = JOB_SECONDS,
        hold: Hold = nullcontext,
    ) -> None:
        self._limiter = trio.CapacityLimiter(size)
        self._job_seconds = job_seconds
        self._hold = hold
        self._idle: list[_Child] = []
        self._closed = False

    async def render(
        self, text: str, context: Mapping[str, Any], *, python_literals: bool = False
    ) -> str:
        """Render a template.

        Raises:
            WorkerError: it failed, took too long or too much memory.
            WorkerUnavailable: no child can be started.
        """
        job = {"text": text, "context": context, "python_literals": python_literals}
        return str(await self._run({"job": "render", **job}))

    async def search(self, pattern: str, subject: str) -> bool:
        """Tell whether *pattern* is found anywhere in *subject*.

        Raises:
            WorkerError: kind "pattern" if it is none, "timeout" if it takes too long.
            WorkerUnavailable: no child can be started.
        """
        return bool(await self._run({"job": "search", "pattern": pattern, "subject": subject}))

    async def find_all(self, pattern: str, subject: str) -> list[Any]:
        """Return every match of *pattern* in *subject*: texts, or lists of texts for groups.

        Raises:
            WorkerError: as `search`; kind "memory" if there is too much to return.
            WorkerUnavailable: no child can be started.
        """
        return list(await self._run({"job": "find_all", "pattern": pattern, "subject": subject}))

    async def aclose(self) -> None:
        """Kill the children. Jobs under way are their callers' to cancel; none may follow."""
        self._closed = True
        while self._idle:
            await self._idle.pop().kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, job: dict[str, Any]) -> Any:
        async with self._limiter:
            with self._hold():
                child = await self._take_child()
                try:
                    reply = await self._ask(child, job)
                except BaseException:
                    await child.kill()  # noqa: ASYNC102 - shields itself
                    raise
                if self._closed:
                    await child.kill()
                else:
                    self._idle.append(child)
        if "error" in reply:
            raise WorkerError(reply["error"], reply["message"])
        return reply["value"]

    async def _ask(self, child: "_Child", job: dict[str, Any]) -> dict[str, Any]:
        with trio.move_on_after(self._job_seconds):
            return await child.ask(job)
        raise WorkerError("timeout", f"took longer than {self._job_seconds:g} s")

    async def _take_child(self) -> "_Child":
        if self._closed:
            raise trio.ClosedResourceError
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            await child.kill()
        return await _Child.start()


class _Child:
    """One process and its two pipes. Used by one job at a time."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    @classmethod
    async def start(cls) -> "_Child":
        process = await trio.lowlevel.open_process(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        child = cls(process)
        try:
            with trio.fail_after(START_SECONDS):
                await child._read_reply()
        except (WorkerError, trio.TooSlowError) as error:
            await child.kill()  # noqa: ASYNC120 - shields itself
            raise WorkerUnavailable("a worker process does not start") from error
        except BaseException:
            await child.kill()  # noqa: ASYNC102 - shields itself
            raise
        return child

    def is_alive(self) -> bool:
        return self._process.poll() is None

    async def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        with suppress(trio.BrokenResourceError):  # it died while reading; no reply says so
            await self._stdin.send_all(msgspec.json.encode(job) + b"\n")
        return await self._read_reply()

    async def kill(self) -> None:
        with trio.CancelScope(shield=True):
            if self._process.returncode is None:
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            await self._stdin.aclose()
            await self._stdout.aclose()

    async def _read_reply(self) -> dict[str, Any]:
        raw = bytearray()
        while not raw.endswith(b"\n"):
            part = await self._stdout.receive_some(65536)
            raw += part
            if not part or len(raw) > MAX_REPLY_BYTES:
                # A child ends by itself only when an allocation fails beyond repair.
                raise WorkerError("memory", "out of memory")
        reply: dict[str, Any] = msgspec.json.decode(raw)
        return reply

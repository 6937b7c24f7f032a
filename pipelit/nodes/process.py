"""Runs a program inside its limits and leaves nothing of it behind.

Output is read in bounded chunks and kept up to a limit; the rest is read and dropped, so a program
that says too much does not stall. However a run ends, the whole process group is killed: what left
the group is caught by the sandbox's PID namespace. Contract: engine.md §29.3, §11.3.
"""

import math
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

import msgspec
import trio

from pipelit.errors import PipelitError

MAX_OUTPUT = 100_000
ADDRESS_SPACE = 1024**3
MAX_PROCESSES = 256
MAX_FILE = 256 * 1024**2

_PRLIMIT = "/usr/bin/prlimit"
_CHUNK = 65_536
_LINGER = 1.0
"""Seconds for pipes to end after the program did: something may have kept them open."""
_REAP = 5.0


class TimedOut(PipelitError):
    """The program was killed because its time was up."""


class Ended(msgspec.Struct, frozen=True):
    """How a program ended. `exit_code`: negative for a signal. `truncated`: output was dropped."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool


def limited(seconds: float, command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that runs *command* under the contract's limits.

    It belongs inside the sandbox: there the limit of processes counts those of the sandbox alone.
    """
    # One second more than the wall time, which is what a program that just computes should hit.
    processor = math.ceil(seconds) + 1
    limits = (f"--as={ADDRESS_SPACE}", f"--nproc={MAX_PROCESSES}", f"--fsize={MAX_FILE}")
    return (_PRLIMIT, *limits, f"--cpu={processor}", "--core=0", "--", *command)


async def run(
    command: Sequence[str],
    *,
    seconds: float,
    environ: Mapping[str, str],
    descriptors: Sequence[int] = (),
    keep: int = MAX_OUTPUT,
) -> Ended:
    """Run *command* in a session of its own with an empty input.

    Args:
        seconds: wall time.
        environ: all the program sees of an environment.
        descriptors: what it inherits besides its output.
        keep: bytes kept of each of its two outputs.

    Raises:
        TimedOut: the time was up.
        OSError: it cannot be started.
    """
    program = _Program(command, environ, descriptors)
    stdout, stderr = _Capture(program.stdout, keep), _Capture(program.stderr, keep)
    try:
        with trio.move_on_after(seconds):
            code = await _follow(program, stdout, stderr)
            truncated = stdout.truncated or stderr.truncated
            return Ended(code, bytes(stdout.kept), bytes(stderr.kept), truncated)
        raise TimedOut(f"timed out after {seconds:g} seconds")
    finally:
        with trio.CancelScope(shield=True):
            await program.end()


class _Program:
    """A running program, its two outputs, and a descriptor that tells when it ended.

    It is started by the thread of the loop, which takes about a millisecond, not by `open_process`:
    bubblewrap dies with the thread that started it, and that one's threads end when they are idle.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], descriptors: Sequence[int]
    ) -> None:
        with ExitStack() as on_failure, ExitStack() as ends:
            self.stdout, out = _open_pipe(on_failure, ends)
            self.stderr, err = _open_pipe(on_failure, ends)
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(environ),
                cwd="/",
                pass_fds=tuple(descriptors),
                start_new_session=True,
            )
            on_failure.callback(self._kill)
            self._ended = os.pidfd_open(self._popen.pid)
            on_failure.pop_all()

    async def wait(self) -> int:
        """Return the exit code, once there is one."""
        while self._popen.poll() is None:
            await trio.lowlevel.wait_readable(self._ended)
        await trio.lowlevel.checkpoint()
        return int(self._popen.returncode)

    async def end(self) -> None:
        """Kill what is left of the group, reap the program, close the pipes."""
        if self._popen.poll() is None:
            self._kill()
            with trio.move_on_after(_REAP):
                await self.wait()
        os.close(self._ended)
        await self.stdout.aclose()
        await self.stderr.aclose()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)


def _open_pipe(on_failure: ExitStack, always: ExitStack) -> tuple[trio.lowlevel.FdStream, int]:
    """Return the two ends of a pipe, the program's closed when *always* is."""
    ours, its = os.pipe()
    always.callback(os.close, its)
    stream = trio.lowlevel.FdStream(ours)
    on_failure.callback(stream.close)
    return stream, its


class _Capture:
    """The beginning of what comes out of a pipe."""

    def __init__(self, pipe: trio.abc.ReceiveStream, keep: int) -> None:
        self._pipe = pipe
        self._keep = keep
        self.kept = bytearray()
        self.truncated = False

    async def fill(self) -> None:
        """Read to the end."""
        while part := await self._pipe.receive_some(_CHUNK):
            room = self._keep - len(self.kept)
            self.kept += part[:room]
            self.truncated = self.truncated or len(part) > room


async def _follow(program: _Program, *captures: _Capture) -> int:
    """Read until the program ended and its output did, or lingers."""
    async with trio.open_nursery() as nursery:
        for capture in captures:
            nursery.start_soon(capture.fill)
        code = await program.wait()
        nursery.cancel_scope.deadline = trio.current_time() + _LINGER
    return code

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
from contextlib import suppress

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
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environ),
        cwd="/",
        pass_fds=tuple(descriptors),
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = _Capture(process.stdout, keep), _Capture(process.stderr, keep)
    try:
        with trio.move_on_after(seconds):
            code = await _follow(process, stdout, stderr)
            truncated = stdout.truncated or stderr.truncated
            return Ended(code, bytes(stdout.kept), bytes(stderr.kept), truncated)
        raise TimedOut(f"timed out after {seconds:g} seconds")
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


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


async def _follow(process: trio.Process, *captures: _Capture) -> int:
    """Read until the program ended and its output did, or lingers."""
    async with trio.open_nursery() as nursery:
        for capture in captures:
            nursery.start_soon(capture.fill)
        code = await process.wait()
        nursery.cancel_scope.deadline = trio.current_time() + _LINGER
    return code


async def _end(process: trio.Process) -> None:
    """Kill what is left of the group, reap the program, close the pipes."""
    assert process.stdout is not None
    assert process.stderr is not None
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.move_on_after(_REAP):
            await process.wait()
    await process.stdout.aclose()
    await process.stderr.aclose()

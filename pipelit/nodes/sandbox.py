"""Runs commands of nodes in a sandbox in their workspace, or refuses.

What goes in (options with the values of variables, files) and what comes out (bubblewrap's status,
a result) passes through anonymous files in memory: no command line shows a secret, nothing is left
on a disk, and the server follows no path that sandboxed code could change.

Contract: engine.md §29.
"""

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
import trio

from pipelit.nodes import bubblewrap, process
from pipelit.nodes.base import NodeError, config_error
from pipelit.nodes.bubblewrap import Room
from pipelit.nodes.masking import Mask

MAX_RESULT = 16 * 1024**2
MAX_SKILLS = 200
TRUNCATED = {
    "code": "output_truncated",
    "message": f"Only the first {process.MAX_OUTPUT} bytes of an output were kept",
}

_WORST_START = 15.0
_MAX_STATUS = 65_536


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process works. Its directory and `.tmp` in it exist and are real directories.

    `secrets` are the values of variables that no output may show.
    """

    path: str
    allow_network: bool
    variables: Mapping[str, str]
    secrets: Sequence[str]


FindWorkspace: TypeAlias = Callable[[int, int | None], Awaitable[Workspace]]
"""(workflow id, workspace id; None: the default one) -> the workspace, its variables resolved.

Raises `NodeError`: `ConfigError`; the workflow's owner has no such workspace, or a variable of it
cannot be resolved.
"""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Args:
        command: program and arguments; with *wants_result* the number of the descriptor to write
            the result to is added.
        seconds: wall time.
        files: {path in the sandbox: content}, read-only.
    """

    command: Sequence[str]
    seconds: float
    files: Mapping[str, bytes] = {}
    wants_result: bool = False


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended, secrets hidden. `result` is raw: hide what is made of it by `mask`."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool
    result: bytes
    mask: Mask


def unavailable(refusal: str) -> NodeError:
    """Return the error of a sandbox that cannot be had."""
    return NodeError(refusal, code="SandboxUnavailable", retryable=False)


def tool_timeout(seconds: float) -> float:
    """Return how long a tool call may take whose process may take *seconds*."""
    return seconds + _WORST_START


class Sandbox:
    """Runs jobs. Whether bubblewrap works is found out before the first one, and kept once it does.

    Args:
        find_workspace: asked before each job.
        search_path: directories in which `bwrap` is looked for, like `PATH`.
        skill_roots: directories whose folders every sandbox can read.
    """

    def __init__(
        self,
        find_workspace: FindWorkspace,
        *,
        search_path: str,
        skill_roots: Sequence[Path] = (),
    ) -> None:
        self._find_workspace = find_workspace
        self._search_path = search_path
        self._skill_roots = tuple(skill_roots)
        self._program: str | None = None
        self._probing = trio.Lock()

    async def run(self, job: Job, *, workflow_id: int, workspace_id: int | None) -> Completed:
        """Run a job in a workspace of the workflow's owner.

        Raises:
            NodeError: `SandboxUnavailable`, `ConfigError`.
            process.TimedOut: the time was up; nothing of the job runs any more.
            OSError: the job cannot be started: its command is too long.
        """
        program = await self._find_program()
        workspace = await self._find_workspace(workflow_id, workspace_id)
        skills = await trio.to_thread.run_sync(_find_skills, self._skill_roots)
        mask = Mask(workspace.secrets)
        with _open_channels(job) as channels:
            room = Room(
                workspace=workspace.path,
                allow_network=workspace.allow_network,
                variables=workspace.variables,
                files=channels.files,
                skills=skills,
            )
            ended = await process.run(
                [program, *channels.arguments(room), "--", *channels.command(job)],
                seconds=job.seconds,
                environ={"PATH": self._search_path},
                descriptors=channels.all,
                keep=process.MAX_OUTPUT + mask.longest,
            )
            if ended.exit_code < 0:
                raise NodeError(f"Sandbox killed by signal {-ended.exit_code}", code="RuntimeError")
            if not channels.has_started():
                raise unavailable(bubblewrap.failed_start(ended.stderr, ended.exit_code))
            limit = process.MAX_OUTPUT
            return Completed(
                exit_code=ended.exit_code,
                stdout=mask.text(ended.stdout, limit),
                stderr=mask.text(ended.stderr, limit),
                truncated=ended.truncated or max(len(ended.stdout), len(ended.stderr)) > limit,
                result=channels.read_result(),
                mask=mask,
            )

    async def _find_program(self) -> str:
        """Return the path of `bwrap`, tried out.

        Raises:
            NodeError: `SandboxUnavailable`. The next job tries again: the operator may have helped.
        """
        async with self._probing:
            if self._program is None:
                path = self._search_path
                program = await trio.to_thread.run_sync(lambda: shutil.which("bwrap", path=path))
                problem = await bubblewrap.find_problem(program, {"PATH": path})
                if program is None or problem:
                    raise unavailable(problem)
                self._program = program
            return self._program


@contextmanager
def _open_channels(job: Job) -> Iterator["_Channels"]:
    """Make the anonymous files of a job; they are gone at the end of the block."""
    opened: list[int] = []
    try:
        yield _Channels(job, opened)
    finally:
        for descriptor in opened:
            os.close(descriptor)


class _Channels:
    """The anonymous files of one job. `all` are their descriptors, which bubblewrap inherits."""

    def __init__(self, job: Job, opened: list[int]) -> None:
        self.all = opened
        self._status = self._make(b"")
        self._result = self._make(b"") if job.wants_result else None
        self.files = {path: self._make(content) for path, content in job.files.items()}

    def arguments(self, room: Room) -> list[str]:
        """Return the arguments that let bubblewrap read its options."""
        parts = ["--json-status-fd", str(self._status), *bubblewrap.options(room)]
        if any("\0" in part for part in parts):
            raise config_error("A variable of the workspace contains a NUL character")
        packed = b"".join(os.fsencode(part) + b"\0" for part in parts)
        return ["--args", str(self._make(packed))]

    def command(self, job: Job) -> Sequence[str]:
        """Return the command under its limits."""
        result = [] if self._result is None else [str(self._result)]
        return process.limited(job.seconds, [*job.command, *result])

    def has_started(self) -> bool:
        """Whether the command was started: bubblewrap itself says how it ended."""
        return b'"exit-code"' in os.pread(self._status, _MAX_STATUS, 0)

    def read_result(self) -> bytes:
        """Return what the command wrote as its result, at most one byte above `MAX_RESULT`."""
        return b"" if self._result is None else os.pread(self._result, MAX_RESULT + 1, 0)

    def _make(self, content: bytes) -> int:
        descriptor = os.memfd_create("pipelit")
        self.all.append(descriptor)
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor


def _find_skills(roots: Sequence[Path]) -> dict[str, str]:
    """Return {name: directory} of the folders in *roots*; the first of a name counts. Blocks."""
    found: dict[str, str] = {}
    for root in roots:
        for folder in _folders(root):
            if len(found) < MAX_SKILLS:
                found.setdefault(folder.name, str(folder))
    return found


def _folders(root: Path) -> Sequence[Path]:
    try:
        # A link may not show what lies elsewhere.
        return sorted(one for one in root.iterdir() if one.is_dir() and not one.is_symlink())
    except OSError:
        return ()

"""Files of a deep agent in a workspace's directory. Contract: node-types.md §5.2.

What runs in the workspace may put links anywhere, at any time: so every part of a path is opened
in the directory before it, and no link is followed.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import trio

from pipelit.nodes.agent_files import ESCAPES, MAX_FILE_BYTES
from pipelit.nodes.base import ToolError

MAX_FILES = 10_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

T = TypeVar("T")


class DiskFiles:
    """Implements `pipelit.nodes.agent_files.Files`.

    Args:
        root: the workspace's directory.
        below: the parts of the path from there to what the agent sees as `/`.
    """

    def __init__(self, root: str, below: Sequence[str] = ()) -> None:
        self._root = root
        self._below = tuple(below)

    async def paths(self) -> Sequence[str]:
        """Return the paths of the files, at most `MAX_FILES`, in order."""
        return await _in_thread(self._list)

    async def read(self, path: str) -> str | None:
        """Return the text of a file; None: there is none."""
        return await _in_thread(lambda: self._read(path))

    async def write(self, path: str, text: str) -> None:
        """Make a file with the directories to it, or replace its text."""
        await _in_thread(lambda: self._write(path, text.encode()))

    def _list(self) -> list[str]:
        try:
            with self._directory(()) as top:
                return sorted(_walk(top))
        except FileNotFoundError:
            return []

    def _read(self, path: str) -> str | None:
        *parents, name = path.strip("/").split("/")
        try:
            with self._directory(parents) as directory, _opened(name, _READ, directory) as file:
                raw = os.pread(file, MAX_FILE_BYTES + 1, 0)
        except FileNotFoundError:
            return None
        if len(raw) > MAX_FILE_BYTES:
            raise ToolError(f"a file must be at most {MAX_FILE_BYTES} bytes")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise ToolError(f"file '{path}' is no text") from error

    def _write(self, path: str, content: bytes) -> None:
        *parents, name = path.strip("/").split("/")
        with (
            self._directory(parents, make=True) as directory,
            _opened(name, _WRITE, directory) as file,
        ):
            os.ftruncate(file, 0)
            with open(file, "wb", closefd=False) as stream:
                stream.write(content)

    @contextmanager
    def _directory(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Open a directory for the length of the block."""
        opened = os.open(self._root, _DIRECTORY)
        try:
            for part in (*self._below, *parts):
                if make and not _exists(part, opened):
                    os.mkdir(part, dir_fd=opened)
                inner = _open(part, _DIRECTORY, opened)
                os.close(opened)
                opened = inner
            yield opened
        finally:
            os.close(opened)


@contextmanager
def _opened(name: str, flags: int, directory: int) -> Iterator[int]:
    file = _open(name, flags, directory)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ToolError(f"'{name}' is no file")
        yield file
    finally:
        os.close(file)


def _open(name: str, flags: int, directory: int) -> int:
    try:
        return os.open(name, flags, 0o644, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise ToolError(ESCAPES) from error
        raise ToolError(f"'{name}' cannot be opened: {error.strerror}") from error


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _walk(top: int) -> Iterator[str]:
    count = 0
    for directory, _, names, _ in os.fwalk(".", dir_fd=top):  # follows no link
        for name in names:
            count += 1
            if count > MAX_FILES:
                return
            yield "/" + os.path.normpath(f"{directory}/{name}")


async def _in_thread(work: Callable[[], T]) -> T:
    def guarded() -> T:
        try:
            return work()
        except OSError as error:
            raise ToolError(f"file system: {error.strerror}") from error

    return await trio.to_thread.run_sync(guarded)

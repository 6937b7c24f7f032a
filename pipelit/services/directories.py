"""The directories of workspaces: where they may lie, made, emptied. Contract: beyond.md §10.

Everything in them was written by sandboxed code, so nothing here follows a symbolic link out of
one, and trees of any depth are left to `find`, which walks them by directory descriptors.
"""

import os
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from pipelit.errors import Unavailable
from pipelit.nodes.bubblewrap import TEMPORARY

NO_STORAGE = "Storage is not available."
ROOTFS = ".rootfs"
"""What is kept of a sandbox's root filesystem."""

EMPTY_TIMEOUT = 60.0
_MAX_PATH, _MAX_PART = 4000, 255

_T = TypeVar("_T")


def make_workspace(root: Path, place: Path) -> None:
    """Make a workspace's directory under *root* and `.tmp` in it; what is there stays. Blocks.

    Raises:
        Unavailable: the disk does not take it.
    """
    try:
        for directory in (root, place, place / TEMPORARY):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(NO_STORAGE) from error


class WorkspaceDirectories:
    """The tree under `<data dir>/workspaces`.

    Args:
        root: that directory, absolute. Made when it is needed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._threads = trio.CapacityLimiter(2)

    async def is_allowed(self, path: str) -> bool:
        """Whether *path* can be a directory under the root, wherever links in it lead now."""
        return await self._in_thread(lambda: self._is_allowed(path))

    async def overlaps(self, path: str, others: Iterable[str]) -> bool:
        """Whether *path* is, holds or lies in one of *others*."""
        places = tuple(others)

        def compare() -> bool:
            here = _real(path)
            there = [_real(place) for place in places]
            return any(here.is_relative_to(one) or one.is_relative_to(here) for one in there)

        return await self._in_thread(compare)

    async def make(self, path: str) -> None:
        """Make a workspace's directory and `.tmp` in it; what is there stays.

        Raises:
            Unavailable: the disk does not take it.
        """
        await self._in_thread(partial(make_workspace, self.root, Path(path)))

    async def is_real(self, path: str) -> bool:
        """Whether `.tmp` of a workspace is a directory, not a link to one."""
        temporary = Path(path) / TEMPORARY
        return await self._in_thread(lambda: temporary.is_dir() and not temporary.is_symlink())

    async def empty(self, path: str) -> None:
        """Delete everything in a workspace's directory, then make `.tmp` again.

        Raises:
            Unavailable: something could not be deleted, or not in time.
        """
        await self.make(path)
        await _delete(path, "-mindepth", "1")
        await self.make(path)

    async def drop_rootfs(self, path: str) -> None:
        """Delete what is kept of a workspace's root filesystem, if anything is.

        Raises:
            Unavailable: as `empty`.
        """
        place = Path(path) / ROOTFS
        if await self._in_thread(lambda: os.path.lexists(place)):
            await _delete(str(place))

    def _is_allowed(self, path: str) -> bool:
        parts = os.fsencode(path).split(b"/")
        if not path.startswith("/") or len(path) > _MAX_PATH or max(map(len, parts)) > _MAX_PART:
            return False
        place = _real(path)
        if _real(self.root) not in place.parents:
            return False
        # What deleted workspaces left behind may be a file.
        there = next(one for one in (place, *place.parents) if one.exists())
        return there.is_dir()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads)
        except OSError as error:
            raise Unavailable(NO_STORAGE) from error


def _real(path: str | Path) -> Path:
    """Return where *path* leads, all links resolved; what does not exist is taken as it is."""
    return Path(os.path.realpath(path))


async def _delete(path: str, *which: str) -> None:
    """Delete what `find` finds at *path*; directories that forbid it are opened first."""
    if not await _run("find", path, *which, "-delete"):
        # Code may have taken its own directories' permissions away.
        await _run("chmod", "-R", "u+rwX", path)
        if not await _run("find", path, *which, "-delete"):
            raise Unavailable(NO_STORAGE)


async def _run(*command: str) -> bool:
    """Run a program; return whether it succeeded in time."""
    try:
        with trio.move_on_after(EMPTY_TIMEOUT):
            ended = await trio.run_process(
                command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            return ended.returncode == 0
    except OSError:
        return False
    return False

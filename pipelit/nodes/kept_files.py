"""Files of a deep agent in its run: they live and end with the execution.

Contract: node-types.md §5.2.
"""

from collections.abc import Callable, Sequence

from pipelit.nodes.base import ToolError

MAX_FILES = 1000
MAX_BYTES = 8_388_608
"""Of all files together: half of what the progress of a run may have."""
MAX_PATH_CHARS = 255


class StateFiles:
    """Implements `pipelit.nodes.agent_files.Files` over what the run keeps.

    Nothing here waits, so a file changes in the moment its tool has its result.
    """

    def __init__(
        self, load: Callable[[], dict[str, str]], keep: Callable[[dict[str, str]], None]
    ) -> None:
        self._load = load
        self._keep = keep

    async def paths(self) -> Sequence[str]:
        """Return the paths of all files, in order."""
        return sorted(self._load())

    async def read(self, path: str) -> str | None:
        """Return the text of a file; None: there is none."""
        return self._load().get(path)

    async def write(self, path: str, text: str) -> None:
        """Make a file, or replace its text."""
        others = {other: kept for other, kept in self._load().items() if other != path}
        size = sum(len(kept.encode()) for kept in others.values())
        problem = check_room(path, text, count=len(others), size=size)
        if problem is not None:
            raise ToolError(problem)
        self._keep({**others, path: text})


def check_room(path: str, text: str, *, count: int, size: int) -> str | None:
    """Return why a file cannot be kept beside *count* others of *size* bytes; None: it can."""
    if len(path) > MAX_PATH_CHARS:
        return f"a path must be at most {MAX_PATH_CHARS} characters"
    if count >= MAX_FILES:
        return f"there are {MAX_FILES} files already"
    if size + len(text.encode()) > MAX_BYTES:
        return f"all files together must be at most {MAX_BYTES} bytes"
    return None

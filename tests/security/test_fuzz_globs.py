"""A glob of a model is looked for where it can be stopped. Contract: node-types.md §5.2."""

import re
from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio
from hypothesis import given

from pipelit.nodes.agent_files import FileTools, glob_pattern
from pipelit.nodes.base import ToolContext, ToolError
from pipelit.nodes.worker import WorkerPool
from tests.kit.hostile import fuzz, soup

NOBODY = cast("ToolContext", None)


class Names:
    """Files that have only names."""

    def __init__(self, *paths: str) -> None:
        self._paths = paths

    async def paths(self) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return self._paths

    async def read(self, path: str) -> str | None:
        raise AssertionError("nobody reads")

    async def write(self, path: str, text: str) -> None:
        raise AssertionError("nobody writes")


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["glob", "grep"])
async def test_a_glob_that_never_ends_is_stopped(tool: str) -> None:
    """Two hundred characters of one path are enough for a minute; the tool says so instead."""
    arguments: dict[str, Any] = {"path": "/", "pattern": "**a**a**a**a**a**b"}
    arguments["glob"] = "/" + arguments["pattern"]
    async with WorkerPool() as pool:
        tools = FileTools(Names("/" + "a" * 200), pool)
        with pytest.raises(ToolError, match="pattern timed out"):
            await getattr(tools, tool)(arguments, NOBODY)
        assert await tools.glob({"path": "/", "pattern": "a*"}, NOBODY) == "/" + "a" * 200


@fuzz
@given(soup(*"*?/[]{}()|\\^$+.", "**/", "a", "\0", longest=12))
def test_any_glob_is_a_pattern_or_refused(glob: str) -> None:
    """Its other characters stand for themselves."""
    try:
        pattern = glob_pattern(glob)
    except ToolError:
        return
    assert re.compile(pattern).groups == 0


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("??.md", ["/ab.md"]),
        ("**/?.md", ["/a.md", "/d/a.md"]),
        ("*", ["/a.md", "/ab.md", "/a\nb"]),
        ("****/*.md", ["/a.md", "/ab.md", "/d/a.md"]),
        ("", []),
    ],
)
async def test_a_glob_finds_whole_names(glob: str, found: list[str]) -> None:
    """Each question mark is one character; a name may hold any but NUL."""
    async with WorkerPool() as pool:
        tools = FileTools(Names("/a.md", "/ab.md", "/a\nb", "/d/a.md"), pool)
        shown = await tools.glob({"path": "/", "pattern": glob}, NOBODY)

    assert shown == ("\n".join(found) or "No files matched")

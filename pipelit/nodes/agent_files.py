"""The file tools of a deep agent, over any store of text files with absolute paths.

Contract: node-types.md §5.2.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipelit.engine.definition import NodeDef
from pipelit.engine.operators import MAX_PATTERN_CHARS, MAX_SUBJECT_CHARS
from pipelit.nodes.base import Tool, ToolContext, ToolError
from pipelit.nodes.tool_schema import tool_spec
from pipelit.nodes.worker import WorkerError

MAX_FILE_BYTES = 1_048_576
MAX_LINE_CHARS = 2000
MAX_PATHS = 200
MAX_HITS = 100
ESCAPES = "path escapes the workspace"

_PATH = {"type": "string", "default": "/", "description": "Absolute path of a directory"}
_FILE = {"type": "string", "description": "Absolute path of the file"}


class Files(Protocol):
    """Text files. Paths are absolute, `/` between their parts, without `.` and `..`.

    Every method raises `ToolError` where it cannot do what is asked.
    """

    async def paths(self) -> Sequence[str]:
        """Return the paths of all files, in order."""

    async def read(self, path: str) -> str | None:
        """Return the text of a file; None: there is none."""

    async def write(self, path: str, text: str) -> None:
        """Make a file, or replace its text."""


class Search(Protocol):
    """Finds what a regular expression matches, where it can be stopped."""

    async def find_all(self, pattern: str, subject: str) -> list[Any]:
        """Return all matches. Raises `WorkerError`."""


def clean_path(path: str) -> str:
    """Return the absolute form of a path; one without `/` at its start begins at the root.

    Raises:
        ToolError: it leaves the root.
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                raise ToolError(ESCAPES)
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if "\0" in path:
        raise ToolError("path contains a NUL character")
    return "/" + "/".join(parts)


def file_tools(files: Files, node: NodeDef, search: Search) -> tuple[Tool, ...]:
    """Offer `ls`, `read_file`, `write_file`, `edit_file`, `glob` and `grep`."""
    bodies = FileTools(files, search)
    return tuple(
        Tool(spec=spec, node=node_of(node, spec.name), run=getattr(bodies, spec.name))
        for spec in _SPECS
    )


def node_of(agent: NodeDef, tool: str) -> NodeDef:
    """Return what stands for a built-in tool in events."""
    return NodeDef(id=0, node_id=f"_builtin_{tool}", component_type=agent.component_type)


class FileTools:
    """The bodies of the tools; each takes the arguments of a call and returns its result."""

    def __init__(self, files: Files, search: Search) -> None:
        self._files = files
        self._search = search

    async def ls(self, arguments: dict[str, Any], _context: ToolContext) -> str:
        """List a directory."""
        inside = _inside(await self._files.paths(), arguments["path"])
        entries = {
            rest.partition("/")[0] + ("/" if "/" in rest else "") for rest in inside.values()
        }
        return "\n".join(sorted(entries)) or "(empty)"

    async def read_file(self, arguments: dict[str, Any], _context: ToolContext) -> str:
        """Show the lines of a file with their numbers."""
        text = await self._read(arguments["file_path"])
        if not text:
            return "(file is empty)"
        first = max(arguments["offset"], 0)
        lines = text.split("\n")
        if lines[-1] == "":
            lines.pop()
        shown = lines[first : first + max(arguments["limit"], 1)]
        numbered = enumerate(shown, start=first + 1)
        return "\n".join(f"{number:6}\t{line[:MAX_LINE_CHARS]}" for number, line in numbered)

    async def write_file(self, arguments: dict[str, Any], _context: ToolContext) -> str:
        """Make or replace a file."""
        path, content = self._file(arguments["file_path"]), arguments["content"]
        await self._write(path, content)
        return f"Wrote {len(content.encode())} bytes to {path}"

    async def edit_file(self, arguments: dict[str, Any], _context: ToolContext) -> str:
        """Replace a text in a file."""
        path, old = self._file(arguments["file_path"]), arguments["old_string"]
        text = await self._read(path)
        count = text.count(old) if old else 0
        if not count:
            raise ToolError(f"text not found in '{path}'")
        if count > 1 and not arguments["replace_all"]:
            raise ToolError(
                f"text occurs {count} times in '{path}'; pass replace_all=true or give more context"
            )
        await self._write(path, text.replace(old, arguments["new_string"]))
        return f"Replaced {count} occurrence(s) in {path}"

    async def glob(self, arguments: dict[str, Any], _context: ToolContext) -> str:
        """Find files by their names."""
        inside = _inside(await self._files.paths(), arguments["path"])
        found = await self._named(inside, arguments["pattern"])
        return "\n".join(found[:MAX_PATHS]) or "No files matched"

    async def grep(self, arguments: dict[str, Any], _context: ToolContext) -> str:
        """Find lines that a regular expression matches."""
        pattern, wanted = arguments["pattern"], arguments["glob"]
        inside = _inside(await self._files.paths(), arguments["path"])
        paths: Sequence[str] = tuple(inside)
        if wanted:
            paths = await self._named(inside, wanted if "/" in wanted else f"**/{wanted}")
        hits: list[str] = []
        for path in paths:
            hits += await self._hits(path, await self._text(path), pattern)
            if len(hits) >= MAX_HITS:
                break
        return "\n".join(hits[:MAX_HITS]) or "No matches"

    async def _hits(self, path: str, text: str, pattern: str) -> list[str]:
        if not pattern or len(pattern) > MAX_PATTERN_CHARS:
            raise ToolError(f"pattern must have 1 to {MAX_PATTERN_CHARS} characters")
        subject = text[:MAX_SUBJECT_CHARS]
        try:
            # The first group is the whole line, whatever groups the pattern has.
            found = await self._search.find_all(f"(?m)^(?=(.*)$).*?(?:{pattern})", subject)
        except WorkerError as error:
            raise ToolError(
                f"invalid regular expression: {error}"
                if error.kind == "pattern"
                else "regular expression timed out"
            ) from error
        lines = {match if isinstance(match, str) else match[0] for match in found}
        return [
            f"{path}:{number}:{line[:MAX_LINE_CHARS]}"
            for number, line in enumerate(subject.split("\n"), start=1)
            if line in lines
        ]

    async def _named(self, inside: Mapping[str, str], pattern: str) -> Sequence[str]:
        """Return the paths whose part below the directory a glob matches."""
        # All at once, by what can be stopped: a few stars suffice for years on one long path.
        subject = "\0".join(inside.values())
        try:
            found = set(await self._search.find_all(glob_pattern(pattern), subject))
        except WorkerError as error:
            raise ToolError("pattern timed out") from error
        return [path for path, rest in inside.items() if rest in found]

    def _file(self, path: str) -> str:
        cleaned = clean_path(path)
        if cleaned == "/":
            raise ToolError("path names no file")
        return cleaned

    async def _read(self, path: str) -> str:
        path = self._file(path)
        text = await self._files.read(path)
        if text is None:
            raise ToolError(f"file '{path}' not found")
        return text

    async def _text(self, path: str) -> str:
        """Return what can be searched: nothing of what is no text."""
        try:
            return await self._files.read(path) or ""
        except ToolError:
            return ""

    async def _write(self, path: str, text: str) -> None:
        if len(text.encode()) > MAX_FILE_BYTES:
            raise ToolError(f"a file must be at most {MAX_FILE_BYTES} bytes")
        await self._files.write(path, text)


def glob_pattern(pattern: str) -> str:
    """Return what finds the paths of a glob among paths with NUL between them.

    `*` and `?` match in one part of a path, `**` over parts.
    """
    pieces = re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", pattern.lstrip("/")[:MAX_PATTERN_CHARS])
    # One star after another matches what the last one does: nothing to try twice.
    pairs = zip(pieces, [*pieces[1:], ""], strict=False)
    kept = [piece for piece, after in pairs if piece != after or piece == "?"]
    wild = {"**/": r"(?:[^\0]*/)?", "**": r"[^\0]*", "*": r"[^/\0]*", "?": r"[^/\0]"}
    if sum("*" in piece for piece in kept) > _MAX_STARS:
        raise ToolError(f"a glob has at most {_MAX_STARS} wildcards")
    body = "".join(wild.get(piece) or re.escape(piece) for piece in kept)
    return rf"(?<![^\0])(?:{body})(?![^\0])"


_MAX_STARS = 6


def _inside(paths: Sequence[str], directory: str) -> dict[str, str]:
    """Return {path: the part of it below *directory*} of the files in there."""
    prefix = clean_path(directory).rstrip("/") + "/"
    return {path: path[len(prefix) :] for path in paths if path.startswith(prefix)}


_SPECS = (
    tool_spec("ls", "List the files and directories in a directory.", {"path": _PATH}),
    tool_spec(
        "read_file",
        "Read lines of a file.",
        {
            "file_path": _FILE,
            "offset": {"type": "integer", "default": 0, "description": "Lines to leave out"},
            "limit": {"type": "integer", "default": 2000, "description": "Lines to show"},
        },
        required=("file_path",),
    ),
    tool_spec(
        "write_file",
        "Write a file; replaces what is there.",
        {
            "file_path": _FILE,
            "content": {"type": "string", "description": "The whole text, at most 1 MiB"},
        },
        required=("file_path", "content"),
    ),
    tool_spec(
        "edit_file",
        "Replace a text in a file.",
        {
            "file_path": _FILE,
            "old_string": {"type": "string", "description": "Text to replace"},
            "new_string": {"type": "string", "description": "Text to put there"},
            "replace_all": {
                "type": "boolean",
                "default": False,
                "description": "Replace every occurrence",
            },
        },
        required=("file_path", "old_string", "new_string"),
    ),
    tool_spec(
        "glob",
        "Find files by name: * and ? match in one part of a path, ** over parts.",
        {
            "pattern": {"type": "string", "description": "For example **/*.md"},
            "path": _PATH,
        },
        required=("pattern",),
    ),
    tool_spec(
        "grep",
        "Find lines that match a regular expression.",
        {
            "pattern": {"type": "string", "description": "Regular expression"},
            "path": _PATH,
            "glob": {"type": "string", "default": "", "description": "Only files of this name"},
        },
        required=("pattern",),
    ),
)

"""`skill` nodes: folders with step-by-step instructions that an agent reads when it needs them.

Contract: node-types.md §6.3.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio
import yaml

from pipelit.engine.outcome import Warning_
from pipelit.engine.values import to_text
from pipelit.nodes.base import Tool, ToolContext, ToolError, WithConfig
from pipelit.nodes.tool_schema import tool_spec

MAX_FILE_CHARS = 100_000
MAX_SKILLS = 200
READ_SECONDS = 10.0

_MANIFEST = "SKILL.md"
_MAX_BYTES = 4 * MAX_FILE_CHARS

_READ_SKILL = tool_spec(
    "read_skill",
    "Read a file of an attached skill.",
    {
        "name": {"type": "string", "description": "Name of the skill"},
        "file": {"type": "string", "default": _MANIFEST, "description": "File in its folder"},
    },
    required=("name",),
)

T = TypeVar("T")


class Skill(msgspec.Struct, frozen=True):
    """One skill: a folder with a `SKILL.md`, as its front matter introduces it."""

    name: str
    description: str
    folder: Path


class Shelf(msgspec.Struct, frozen=True):
    """The skills of one agent. Names are unique; the first of a name counts."""

    skills: tuple[Skill, ...] = ()
    warnings: tuple[Warning_, ...] = ()

    @property
    def prompt(self) -> str:
        """What the system prompt says of the skills; nothing without any."""
        if not self.skills:
            return ""
        lines = (f"- {skill.name}: {skill.description}" for skill in self.skills)
        return "\n".join(["Skills (read one with read_skill before you use it):", *lines])


class SkillLibrary:
    """Finds skills under the directories the operator allows. Files are read in threads."""

    def __init__(self, roots: Sequence[Path] = ()) -> None:
        """Take the platform's directory first, then the further ones."""
        self._roots = tuple(roots)

    async def open(self, attached: Sequence[WithConfig]) -> Shelf:
        """Return what the `skill` nodes of an agent offer; what cannot be read is warned of."""
        if not attached:
            return Shelf()
        paths = [
            to_text((config.get("extra_config") or {}).get("skill_path")) for _, config in attached
        ]
        return await _in_thread(lambda: self._collect(paths))

    def tools(self, shelf: Shelf, attached: Sequence[WithConfig]) -> tuple[Tool, ...]:
        """Offer `read_skill`, if there is anything to read."""
        folders = {skill.name: skill.folder for skill in shelf.skills}

        async def run(arguments: dict[str, Any], _context: ToolContext) -> str:
            name, file = arguments["name"], arguments.get("file") or _MANIFEST
            if name not in folders:
                raise ToolError(f"unknown skill '{name}'")
            text = await _in_thread(lambda: _read_inside(folders[name], file))
            if text is None:
                raise ToolError(f"file '{file}' not found in skill '{name}'")
            return text

        return (Tool(spec=_READ_SKILL, node=attached[0][0], run=run),) if folders else ()

    def _collect(self, paths: Sequence[str]) -> Shelf:
        found: dict[str, Skill] = {}
        warnings: list[Warning_] = []
        for path in paths:
            directory = self._allowed(path)
            if directory is None:
                warnings.append(_warning(f"'{path}' is in no skill directory"))
                continue
            for folder in _skill_folders(directory):
                skill = _introduce(folder, directory)
                if skill is None:
                    warnings.append(_warning(f"'{folder.name}' cannot be read"))
                elif skill.name not in found and len(found) < MAX_SKILLS:
                    found[skill.name] = skill
                else:
                    warnings.append(_warning(f"'{skill.name}' is not offered: one too many"))
        return Shelf(tuple(found.values()), tuple(warnings))

    def _allowed(self, path: str) -> Path | None:
        """Return the directory *path* names, links followed, if it is under a root."""
        if not self._roots:
            return None
        try:
            directory = (self._roots[0] / path).resolve()
            inside = any(directory.is_relative_to(root.resolve()) for root in self._roots)
        except (OSError, ValueError, RuntimeError):
            return None
        return directory if inside else None


def _skill_folders(directory: Path) -> Iterator[Path]:
    nested = directory / "skills"
    if any(nested.glob(f"*/{_MANIFEST}")):
        directory = nested
    elif (directory / _MANIFEST).is_file():
        yield directory
        return
    yield from sorted(manifest.parent for manifest in directory.glob(f"*/{_MANIFEST}"))


def _introduce(folder: Path, directory: Path) -> Skill | None:
    """Read what a skill says of itself; None if it says nothing usable."""
    # A link may not smuggle in what lies elsewhere.
    text = _read_inside(directory, f"{folder.relative_to(directory)}/{_MANIFEST}")
    front = _front_matter(text) if text is not None else None
    if front is None:
        return None
    name, description = front.get("name"), front.get("description")
    return Skill(
        name=name.strip() if isinstance(name, str) and name.strip() else folder.name,
        description=" ".join(description.split()) if isinstance(description, str) else "",
        folder=folder,
    )


def _front_matter(text: str) -> Mapping[str, Any] | None:
    opening, *rest = text.split("\n---", 1)
    if not opening.startswith("---") or not rest:
        return None
    try:
        front = yaml.safe_load(opening.removeprefix("---"))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return front if isinstance(front, dict) else None


def _read_inside(folder: Path, file: str) -> str | None:
    """Return the text of a file in *folder*, cut for a model; None if there is none."""
    try:
        path = (folder / file).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return None
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES)
    except (OSError, ValueError, RuntimeError):
        return None
    return raw.decode(errors="replace")[:MAX_FILE_CHARS]


async def _in_thread(work: Callable[[], T]) -> T:
    with trio.fail_after(READ_SECONDS):
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def _warning(problem: str) -> Warning_:
    return {"code": "skill_ignored", "message": f"Skill {problem}"}

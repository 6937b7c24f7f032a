"""Reads out of the reference what a server must offer: endpoints and events.

Contract: README.md §11, websocket.md "Events".
"""

import re
from pathlib import Path
from typing import NamedTuple

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
API_PREFIX = "/api/v1"

_ROW = re.compile(r"^\| ☐ \| (\S+) \| (/\S*)([^|]*)\|(.*)\|$", re.MULTILINE)


class Endpoint(NamedTuple):
    """A row of the checklist. `path` is whole, with `{names}`; the first status is usual."""

    method: str
    path: str
    statuses: tuple[int, ...]
    auth: str

    @property
    def shape(self) -> tuple[str, str]:
        """Method and path without names of parameters and the slash at the end."""
        return self.method, shape(self.path)


def endpoints() -> dict[str, Endpoint]:
    """Return the checklist: {`POST /workflows/`: its row}."""
    found = {}
    for method, path, marks, rest in _ROW.findall((REFERENCE / "README.md").read_text("utf-8")):
        *_, statuses, auth = (cell.strip() for cell in rest.split("|"))
        prefix = "" if "(root)" in marks else API_PREFIX
        codes = tuple(int(code) for code in re.findall(r"\d+", statuses))
        found[f"{method} {path}"] = Endpoint(method, prefix + path, codes, auth)
    return found


def shape(path: str) -> str:
    """Return a path without the names of its parameters and the slash at the end."""
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")


def events() -> dict[str, set[str]]:
    """Return the event types of each table: {`Canvas`: {…}}."""
    found: dict[str, set[str]] = {}
    names: set[str] = set()
    for line in (REFERENCE / "websocket.md").read_text("utf-8").splitlines():
        if line.startswith("#"):
            names = set()
            if table := re.match(r"### (\w+), on ", line):
                names = found[table[1]] = set()
        elif line.startswith("| `"):
            names.update(re.findall(r"`(\w+)`", line.split("|")[1]))
    return found

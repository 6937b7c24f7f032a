"""Reads the tables of the reference about node types. Contract: node-types.md §2, §3."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "node-types.md"
TYPES = {
    "str": "string",
    "int": "integer",
    "number": "number",
    "object": "object",
    "array": "array",
}
SLOTS = {"M": "model", "T": "tools", "Y": "memory", "P": "output_parser", "S": "skills"}


class Identity(NamedTuple):
    """A row of the identity table."""

    label: str
    category: str
    icon: str
    color: str
    role: str


class Shape(NamedTuple):
    """A row of the ports table. Ports: `{name: data type}`; a `*` ends a required or mandatory."""

    inputs: dict[str, str]
    outputs: dict[str, str]
    slots: dict[str, bool]


def identities() -> dict[str, Identity]:
    """Return the table of §2: `{component type: row}`."""
    found = {}
    for _, name, label, category, _, icon, color, _, role in _rows("## 2. Checklist — identity"):
        canvas_icon = icon.partition(" / ")[2]
        found[_plain(name)] = Identity(label, category, canvas_icon, color, role)
    return found


def shapes() -> dict[str, Shape]:
    """Return the table of §3: `{component type: row}`."""
    found = {}
    for names, inputs, outputs, slots, _ in _rows("## 3. Checklist — ports and slots"):
        filled = re.findall(r"([MTYPS])(\*?)", "" if slots == "–" else slots)
        shape = Shape(
            _ports(inputs),
            _ports(outputs),
            {SLOTS[letter]: bool(mandatory) for letter, mandatory in filled},
        )
        found |= dict.fromkeys(names.split(", "), shape)
    return found


def descriptions() -> dict[str, str]:
    """Return the table of §3.1: `{component type: text}`."""
    return dict(_rows("### 3.1 Registry descriptions"))


def functions() -> dict[str, dict[str, str]]:
    """Return the table of §3.2: `{component type: {function: description}}`."""
    found: dict[str, dict[str, str]] = {}
    for names, node_type, texts in _rows("### 3.2 Index of functions offered to the model"):
        if node_type in identities():
            offered = dict(zip(names.split(" / "), texts.split(" / "), strict=True))
            found[node_type] = offered
    return found


def signatures() -> dict[str, dict[str, Any]]:
    """Return what §7–§9 write about parameters: `{function: properties of its schema}`.

    Properties have `type`, and `default` unless they are required.
    """
    text = REFERENCE.read_text("utf-8").partition("\n## 7. ")[2].partition("\n## 10. ")[0]
    written = re.findall(r"Tool: `(\w+)\(([^`]*)\)`", text)
    written += re.findall(r"^\| `(\w+)` \| (\w+: [^|]*) \|", text, re.MULTILINE)
    return {name: _parameters(listed) for name, listed in written}


def _parameters(listed: str) -> dict[str, Any]:
    found = re.findall(r"(\w+): (\w+)(\??)(?: = (\"[^\"]*\"|[^,\s]+))?", listed)
    return {
        name: {
            "type": [TYPES[kind], "null"] if optional else TYPES[kind],
            **({"default": None} if optional else {}),
            **({"default": json.loads(default)} if default else {}),
        }
        for name, kind, optional, default in found
    }


def _rows(heading: str) -> Iterator[list[str]]:
    """Yield the cells of the first table below a heading, without its first two lines."""
    _, _, rest = REFERENCE.read_text("utf-8").partition(f"\n{heading}")
    lines = (line for line in rest.splitlines()[1:] if line.startswith(("|", "#")))
    for number, line in enumerate(lines):
        if line.startswith("#"):
            return
        if number > 1:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _ports(cell: str) -> dict[str, str]:
    written = re.sub(r"\([^)]*\)", "", cell)
    pairs = (port.split() for port in written.split(",") if port.strip() not in ("", "–"))
    return {name: kind.lower() for name, kind in pairs}


def _plain(cell: str) -> str:
    return cell.strip("`")

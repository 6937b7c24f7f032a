"""The vocabulary in which component types are described.

Contract: node-types.md §1–3, workflows.md "node-types".
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

DataType = Literal[
    "string",
    "number",
    "boolean",
    "object",
    "array",
    "message",
    "messages",
    "image",
    "file",
    "any",
]
SlotType = Literal["llm", "tool", "memory", "output_parser", "skill"]
SlotName = Literal["model", "tools", "memory", "output_parser", "skills"]
Role = Literal["trigger", "step", "tool", "dual", "config"]
Category = Literal["Triggers", "AI", "Models", "Routing", "Tools", "Processing", "Memory"]

SLOT_TYPES: tuple[tuple[SlotName, SlotType], ...] = (
    ("model", "llm"),
    ("tools", "tool"),
    ("memory", "memory"),
    ("output_parser", "output_parser"),
    ("skills", "skill"),
)
"""Every component handle with the edge label that fills it, in the order clients show them."""


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A place where data enters or leaves a node."""

    name: str
    data_type: DataType
    required: bool = False
    description: str = ""
    default: Any = None
    port_schema: Mapping[str, Any] | None = None


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A component handle: a place where another node is attached by a labelled edge."""

    name: SlotName
    mandatory: bool = False

    @property
    def label(self) -> SlotType:
        """The edge label that fills this slot."""
        return dict(SLOT_TYPES)[self.name]


class TypeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to know about one component type without running it.

    `config_schema` is the JSON Schema of `extra_config`, `{}` when the type has no key of its own.
    `required_as_step` names the `extra_config` keys a walked node cannot do without.
    """

    component_type: str
    label: str
    category: Category
    icon: str
    color: str
    role: Role
    description: str
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    slots: tuple[Slot, ...] = ()
    primary_port: str | None = None
    config_schema: Mapping[str, Any] = {}
    required_as_step: tuple[str, ...] = ()

    def slot(self, name: str) -> Slot | None:
        """Return the slot called *name*, or None if the type lacks it."""
        return next((slot for slot in self.slots if slot.name == name), None)

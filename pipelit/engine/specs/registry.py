"""What clients are told about component types.

Contract: workflows.md "node-types".
"""

from typing import Any

import msgspec

from pipelit.engine.specs.catalogue import COMPONENT_TYPES, SPECS
from pipelit.engine.specs.types import SLOT_TYPES, TypeSpec

_NOT_EXECUTABLE = frozenset({"ai_model", "output_parser", "skill"})


def registry_entry(spec: TypeSpec) -> dict[str, Any]:
    """Describe one component type as plain JSON."""
    slots = {slot.name: slot for slot in spec.slots}
    return {
        "component_type": spec.component_type,
        "label": spec.label,
        "display_name": spec.label,
        "category": spec.category,
        "description": spec.description,
        "icon": spec.icon,
        "color": spec.color,
        "inputs": msgspec.to_builtins(spec.inputs),
        "outputs": msgspec.to_builtins(spec.outputs),
        "sub_inputs": [
            _sub_input(name, label, required=slots[name].mandatory)
            for name, label in SLOT_TYPES
            if name in slots
        ],
        "executable": spec.component_type not in _NOT_EXECUTABLE,
        "requires_model": "model" in slots,
        "requires_tools": "tools" in slots,
        "requires_memory": "memory" in slots,
        "requires_output_parser": "output_parser" in slots,
        "requires_skills": "skills" in slots,
        "config_schema": msgspec.to_builtins(spec.config_schema),
    }


def registry() -> dict[str, dict[str, Any]]:
    """Describe every component type, keyed by its name."""
    return {name: registry_entry(SPECS[name]) for name in COMPONENT_TYPES}


def _sub_input(name: str, data_type: str, *, required: bool) -> dict[str, Any]:
    return {
        "name": name,
        "data_type": data_type,
        "required": required,
        "description": "",
        "default": None,
        "port_schema": None,
    }

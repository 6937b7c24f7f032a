"""Component types as data: labels, ports, slots, config. No behaviour.

Contract: node-types.md §1–3.
"""

from pipelit.engine.specs.catalogue import (
    COMPONENT_TYPES,
    SPECS,
    display_name,
    is_attach_only,
    is_dual,
    is_tool_capable,
    is_trigger,
    primary_port,
    spec_of,
)
from pipelit.engine.specs.config import CONFIG_DEFAULTS, complete_config, kept_fields
from pipelit.engine.specs.registry import registry, registry_entry
from pipelit.engine.specs.types import Port, Slot, TypeSpec

__all__ = [
    "COMPONENT_TYPES",
    "CONFIG_DEFAULTS",
    "SPECS",
    "Port",
    "Slot",
    "TypeSpec",
    "complete_config",
    "display_name",
    "is_attach_only",
    "is_dual",
    "is_tool_capable",
    "is_trigger",
    "kept_fields",
    "primary_port",
    "registry",
    "registry_entry",
    "spec_of",
]

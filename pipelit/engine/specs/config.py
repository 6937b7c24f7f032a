"""The config object of a node: always complete, never with a field its type does not keep.

Contract: nodes.md "Config".
"""

from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any

from pipelit.engine.specs.catalogue import is_trigger

CONFIG_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "system_prompt": "",
        "extra_config": {},
        "llm_credential_id": None,
        "model_name": "",
        "temperature": None,
        "max_tokens": None,
        "frequency_penalty": None,
        "presence_penalty": None,
        "top_p": None,
        "timeout": None,
        "max_retries": None,
        "response_format": None,
        "llm_model_config_id": None,
        "credential_id": None,
        "is_active": True,
        "priority": 0,
        "trigger_config": {},
    }
)
"""Every field in the order clients see them, with its default."""

_ALL = frozenset({"system_prompt", "extra_config"})
_MODEL = frozenset(
    {
        "llm_credential_id",
        "model_name",
        "temperature",
        "max_tokens",
        "frequency_penalty",
        "presence_penalty",
        "top_p",
        "timeout",
        "max_retries",
        "response_format",
    }
)
_TRIGGER = frozenset({"credential_id", "is_active", "priority", "trigger_config"})


def kept_fields(component_type: str) -> frozenset[str]:
    """Return the config fields a node of this type stores; the others read as defaults."""
    if component_type == "ai_model":
        return _ALL | _MODEL
    return _ALL | _TRIGGER if is_trigger(component_type) else _ALL


def complete_config(component_type: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete config object of a node of this type.

    Fields the type does not keep are dropped silently. `llm_model_config_id` follows the edges
    and is never taken from *given*.
    """
    kept = kept_fields(component_type)
    return {
        field: given[field] if field in kept and field in given else deepcopy(default)
        for field, default in CONFIG_DEFAULTS.items()
    }

"""How a function offered to a model describes itself. Contract: node-types.md §1."""

from typing import Any

from pipelit.llm.types import ToolSpec


def tool_spec(
    name: str,
    description: str,
    properties: dict[str, dict[str, Any]] | None = None,
    *,
    required: tuple[str, ...] = (),
) -> ToolSpec:
    """Return the spec of a function whose arguments are exactly *properties*.

    Args:
        properties: {parameter: JSON Schema}; optional ones carry their default.
    """
    parameters = {
        "type": "object",
        "properties": properties or {},
        "required": list(required),
        "additionalProperties": False,
    }
    return ToolSpec(name, description, parameters)

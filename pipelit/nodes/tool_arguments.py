"""Checks what a model passes to a tool against the tool's JSON Schema.

The schemas are our own and flat (node-types.md §1), so a pydantic model says it all.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ArgumentChecker:
    """Built once per tool of a run."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        required = set(parameters.get("required", ()))
        fields: dict[str, Any] = {
            field: (_annotation(schema), ... if field in required else schema.get("default"))
            for field, schema in parameters.get("properties", {}).items()
        }
        self._model = create_model(name, __base__=_Arguments, **fields)

    def check(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Return the arguments with their defaults, and what is wrong with them, if anything."""
        try:
            checked = self._model.model_validate(arguments)
        except ValidationError as error:
            problems = (
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            )
            return {}, "; ".join(problems)
        return checked.model_dump(), None


def _annotation(schema: dict[str, Any]) -> Any:
    declared = schema.get("type")
    names = declared if isinstance(declared, list) else [declared]
    annotation: Any = None
    for name in names:
        part = _TYPES.get(str(name), Any) if name != "null" else None
        annotation = part if annotation is None else annotation | part
    return annotation if annotation is not None else Any

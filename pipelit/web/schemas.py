"""JSON Schemas of what routes take and give, under one roof of names.

Request models are pydantic's, responses are msgspec's; both write their schemas themselves.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pipelit.web.models import QueryModel

Schema = dict[str, Any]
REF = "#/components/schemas/"


class SchemaBook:
    """The schemas of all routes. Built once."""

    def __init__(self, models: Iterable[type[BaseModel]], types: Iterable[object]) -> None:
        self._types = list(types)
        written, components = msgspec.json.schema_components(
            self._types, ref_template=REF + "{name}"
        )
        self._written = [_shown(schema) for schema in written]
        self.components: dict[str, Schema] = {
            name: _shown(schema) for name, schema in components.items()
        }
        self._models: dict[object, Schema] = {}
        self._add_models(list(dict.fromkeys(models)))

    def of_type(self, kind: object) -> Schema:
        """Return the schema of a response type."""
        return dict(self._written[self._types.index(kind)])

    def of_model(self, model: type[BaseModel]) -> Schema:
        """Return the schema of a request model, a reference."""
        return self._models[model]

    def parameters_of(self, model: type[BaseModel]) -> tuple[dict[str, Schema], list[str]]:
        """Return the fields of a query or of headers by wire name, and which are required."""
        schema = self.components[self._models[model]["$ref"].removeprefix(REF)]
        no_filter = {"const": "", "description": "no filter"}
        optional = no_filter if issubclass(model, QueryModel) else None
        fields = {
            name: _as_text(field, optional) for name, field in schema.get("properties", {}).items()
        }
        return fields, schema.get("required", [])

    def _add_models(self, models: list[type[BaseModel]]) -> None:
        by_model, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template=REF + "{model}"
        )
        names = {name: _request_name(name) for name in definitions.get("$defs", {})}
        for name, schema in definitions.get("$defs", {}).items():
            self.components[names[name]] = _renamed(schema, names)
        for (model, _), schema in by_model.items():
            self._models[model] = _renamed(schema, names)


def _as_text(schema: Schema, instead_of_null: Schema | None) -> Schema:
    """Describe a parameter, which is text: it cannot be null."""
    if {"type": "null"} not in schema.get("anyOf", ()):
        return schema
    choices = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    if instead_of_null is not None:
        choices.append(instead_of_null)
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    return {**rest, **choices[0]} if len(choices) == 1 else {**rest, "anyOf": choices}


def _request_name(name: str) -> str:
    """Keep request models apart from responses of the same name."""
    return name if name.endswith(("Request", "Query", "Headers")) else f"{name}Request"


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    if isinstance(schema, dict):
        return {
            key: REF + names[value.removeprefix(REF)] if key == "$ref" else _renamed(value, names)
            for key, value in schema.items()
            if key != "discriminator"
        }
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    return schema


def _shown(schema: Any) -> Any:
    """Describe instants as they are written: RFC 3339 asks for an offset that ours do not have."""
    if isinstance(schema, dict):
        if schema.get("format") == "date-time":
            rest = {key: value for key, value in schema.items() if key != "format"}
            return {**rest, "description": "UTC, ISO 8601, without an offset"}
        return {key: _shown(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_shown(item) for item in schema]
    return schema

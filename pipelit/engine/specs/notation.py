"""Short constructors, so that the tables of types read like the contract's tables."""

from typing import Any

from pipelit.engine.specs.types import DataType, Port, Slot

Schema = dict[str, Any]

MODEL = Slot(name="model", mandatory=True)
OPTIONAL_MODEL = Slot(name="model")
TOOLS = Slot(name="tools")
MEMORY = Slot(name="memory")
PARSER = Slot(name="output_parser")
SKILLS = Slot(name="skills")


def port(name: str, data_type: DataType) -> Port:
    """A port that may stay empty."""
    return Port(name=name, data_type=data_type)


def need(name: str, data_type: DataType) -> Port:
    """An input port that must be fed."""
    return Port(name=name, data_type=data_type, required=True)


def keys(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """The JSON Schema of an object with these *properties*; others are allowed."""
    schema: Schema = {"type": "object", "properties": properties}
    return schema | {"required": list(required)} if required else schema


def text(default: str | None = None, *, nullable: bool = False, **more: Any) -> Schema:
    """A string, shown with its *default* when it has one."""
    return _typed("string", default, nullable, more)


def integer(
    default: int | None = None,
    low: int | None = None,
    high: int | None = None,
    *,
    nullable: bool = False,
) -> Schema:
    """A whole number between *low* and *high*, both inclusive."""
    return _typed("integer", default, nullable, _bounds(low, high))


def number(
    default: float | None = None, low: float | None = None, high: float | None = None
) -> Schema:
    """A number between *low* and *high*, both inclusive."""
    return _typed("number", default, False, _bounds(low, high))


def flag(default: bool) -> Schema:
    """A boolean."""
    return {"type": "boolean", "default": default}


def choice(*values: str | None, default: str | None = None) -> Schema:
    """One of *values*; None among them stands for null."""
    schema: Schema = {"enum": list(values)}
    if default is not None or None in values:
        schema["default"] = default
    return schema


def mapping(**more: Any) -> Schema:
    """A free object, `{}` by default."""
    return {"type": "object", "default": {}} | more


def listing(items: Schema | None = None) -> Schema:
    """A list, empty by default."""
    schema: Schema = {"type": "array", "default": []}
    return schema | {"items": items} if items else schema


def _bounds(low: float | None, high: float | None) -> Schema:
    bounds = {"minimum": low, "maximum": high}
    return {key: value for key, value in bounds.items() if value is not None}


def _typed(kind: str, default: object, nullable: bool, more: Schema) -> Schema:
    schema: Schema = {"type": [kind, "null"] if nullable else kind} | more
    if default is not None or nullable:
        schema["default"] = default
    return schema

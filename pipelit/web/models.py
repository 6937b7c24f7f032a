"""Field types and base classes of request models, with the contract's rules and messages.

Contract: README.md §3 (bodies), §4 (messages), §5 (lists), §6 (timestamps).
Models check shape only. Whether a thing exists, or a change is allowed, is the services' business.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    RootModel,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1
MAX_NAME, MAX_LONG_TEXT, MAX_BATCH, MAX_PAGE, MAX_TAG_FILTER = 255, 100_000, 1000, 1000, 20

_INTEGER_TEXT = re.compile(r"[+-]?[0-9]{1,4000}")
_NOT_BLANK = r"[^\s\u001c-\u001f\u0085]"
"""What `str.strip` leaves, as a pattern of JSON Schema."""
_BOOLEAN_TEXT = {"true": True, "1": True, "false": False, "0": False}


def problem(message: str) -> PydanticCustomError:
    """Make the error a validator raises; *message* reaches the client as it is."""
    return PydanticCustomError("contract", "{message}", {"message": message})


class RequestModel(BaseModel):
    """Base of request bodies: strict types, unknown fields ignored, immutable.

    Declare integers as `Int64` or `Annotated[int, Integer(1, 86400)]` and floats as `Number`: the
    plain types do not know the contract's rules. A field that a PATCH may leave out but not set
    to null has any default (`name: Name = ""`): `changes` looks at what was sent.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class QueryModel(BaseModel):
    """Base of query models. Values arrive as text: use `IntegerText`, `BooleanText`, literals.

    An empty value means "no filter" for every field whose default is None.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_filters(cls, values: Any) -> Any:
        optional = {
            n for n, f in cls.model_fields.items() if not f.is_required() and f.default is None
        }
        names = {cls.model_fields[name].alias or name for name in optional}
        return {key: value for key, value in values.items() if value != "" or key not in names}


class AnyJson(RootModel[Any]):
    """A body that is any JSON value, an object or not."""

    model_config = ConfigDict(frozen=True)


class HeaderModel(BaseModel):
    """Base of header models. Each field has the header's published name as alias."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def changes(model: BaseModel) -> dict[str, Any]:
    """Return the fields the client sent, `{name: value}`, nulls included. For PATCH."""
    return {name: getattr(model, name) for name in model.model_fields_set}


def given(name: str, kind: str) -> dict[str, Any]:
    """Return the JSON Schema of an object in which a field is there and not null."""
    return {"required": [name], "properties": {name: {"type": kind}}}


class Integer:
    """Marks an integer of a body: whole floats count, both limits are inclusive."""

    def __init__(self, minimum: int = MIN_INT64, maximum: int = MAX_INT64) -> None:
        self.minimum = minimum
        self.maximum = maximum

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        inner = core_schema.int_schema(strict=True, ge=self.minimum, le=self.maximum)
        return core_schema.no_info_before_validator_function(self._convert, inner)

    @classmethod
    def _convert(cls, value: object) -> object:
        return int(value) if type(value) is float and value.is_integer() else value


class IntegerText(Integer):
    """Marks an integer of a query, path or header: decimal digits with an optional sign."""

    @staticmethod
    def parse(text: str) -> int | None:
        """Return the integer *text* stands for, or None."""
        return int(text) if _INTEGER_TEXT.fullmatch(text) else None

    @classmethod
    def _convert(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        number = cls.parse(value)
        if number is None:
            raise problem("must be an integer")
        return number


class NotBlank:
    """Marks a text that may not be only whitespace. Stands after what limits its length."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": _NOT_BLANK}

    @staticmethod
    def _check(value: str) -> str:
        if not value.strip():
            raise problem("must not be blank")
        return value


def _parse_boolean(value: object) -> object:
    if isinstance(value, str):
        try:
            return _BOOLEAN_TEXT[value.lower()]
        except KeyError:
            raise problem("must be a boolean") from None
    return value


def _parse_instant(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise problem("must be a string")
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise problem("must be an ISO 8601 datetime") from None


def _split_tags(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(tag for tag in value.split(",") if tag.strip())


def _printable(value: str) -> str:
    if not all(" " <= character <= "~" for character in value):
        raise problem("must be valid text")
    return value


def _unique(values: list[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


Int64 = Annotated[int, Integer()]
"""Any integer of signed 64 bits."""

Number = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number; an integer is accepted."""

Text = str
"""Any text, the empty one included. Strictness and valid characters come with the model."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), NotBlank()]
"""A name or title: 1–255 characters, not only whitespace."""

LongText = Annotated[str, Field(max_length=MAX_LONG_TEXT)]
"""Descriptions, prompts, messages: up to 100 000 characters, may be empty."""

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,254}$")]
"""A workflow's slug. Reserved words are for the section's own validator."""

Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=50)]], Field(max_length=50)]
"""Tags of a resource, kept as sent. Contract: README.md §8."""

FreeObject = dict[str, Any]
"""Any JSON object, stored as sent."""

Instant = Annotated[datetime, BeforeValidator(_parse_instant)]
"""An ISO 8601 datetime; becomes an aware datetime in UTC."""

BooleanText = Annotated[bool, BeforeValidator(_parse_boolean)]
"""A boolean in a query: `true`, `false`, `1`, `0`."""

TagFilter = Annotated[
    tuple[str, ...],
    BeforeValidator(_split_tags),
    Field(max_length=MAX_TAG_FILTER),
    WithJsonSchema({"type": "string", "description": "tags with commas between them"}),
]
"""`a,b` in a query: blanks dropped, at most 20."""

BatchIds = Annotated[list[Int64], Field(max_length=MAX_BATCH), AfterValidator(_unique)]
"""Ids of a batch-delete: at most 1000, duplicates are one."""

BatchKeys = Annotated[list[str], Field(max_length=MAX_BATCH), AfterValidator(_unique)]
"""Text ids or slugs of a batch-delete."""

IdempotencyKey = Annotated[
    str,
    Field(min_length=1, max_length=200, json_schema_extra={"pattern": "^[!-~]([ -~]*[!-~])?$"}),
    AfterValidator(_printable),
]
"""What a client repeats with a request; HTTP strips blanks around it."""


class ListQuery(QueryModel):
    """Paging of every list. Contract: README.md §5."""

    limit: Annotated[int, IntegerText(0, MAX_PAGE)] = 50
    offset: Annotated[int, IntegerText(0)] = 0


class IdempotencyHeaders(HeaderModel):
    """For the routes that start executions. Contract: README.md §3."""

    idempotency_key: IdempotencyKey | None = Field(default=None, alias="Idempotency-Key")


def field_names(model: type[BaseModel]) -> dict[str, str]:
    """Return the wire names of a model's fields: `{wire name: attribute name}`."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def known_part(value: Any, kind: Any) -> Any:
    """Return *value* without the fields that the model within the type *kind* does not know."""
    if isinstance(value, list):
        return [known_part(item, kind) for item in value]
    model = _model_within(kind)
    if model is None or not isinstance(value, dict):
        return value
    kinds = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    return {name: known_part(item, kinds[name]) for name, item in value.items() if name in kinds}


def _model_within(kind: Any) -> type[BaseModel] | None:
    """Return the model that a type is, or is a list or an optional of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next(filter(None, map(_model_within, get_args(kind))), None)

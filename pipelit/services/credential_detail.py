"""The fields of each credential type as data, and what follows from them: checks, masks, merges.

Pure. *Values* are the clear fields of one credential, defaults included: `{field: value}`.
Contract: credentials.md, "detail by type" and "Masking".
"""

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

CredentialType = Literal["llm", "gateway", "git", "tool"]
Values = dict[str, Any]


class Kind(Enum):
    """The shape of a field."""

    TEXT = "text"
    URL = "url"
    BOOLEAN = "boolean"
    OBJECT = "object"
    HEADERS = "headers"


class Secrecy(Enum):
    """What is shown of a field. All but `OPEN` are encrypted at rest."""

    OPEN = "open"
    MASKED = "masked"
    WHOLE = "whole"
    """Nothing of the value, only that there is one."""
    BY_NAME = "by_name"
    """An object: the texts in it whose name sounds secret are masked."""
    UNSHOWN = "unshown"
    """Not even the field."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a credential type."""

    name: str
    kind: Kind = Kind.TEXT
    default: object = ""
    secrecy: Secrecy = Secrecy.OPEN
    choices: tuple[str, ...] = ()
    max_length: int = 100_000
    nullable: bool = False
    read_only: bool = False


FIELDS: Mapping[CredentialType, tuple[Field, ...]] = {
    "llm": (
        Field(
            name="provider_type",
            default="openai_compatible",
            choices=("openai_compatible", "anthropic", "openai", "glm"),
        ),
        Field(name="api_key", secrecy=Secrecy.MASKED, max_length=4096),
        Field(name="base_url", kind=Kind.URL),
        Field(name="organization_id"),
        Field(name="custom_headers", kind=Kind.HEADERS, default={}, secrecy=Secrecy.BY_NAME),
    ),
    "gateway": (
        Field(name="api_key", secrecy=Secrecy.MASKED),
        Field(name="allowed_user_ids"),
        Field(name="adapter_type"),
        Field(name="token", secrecy=Secrecy.UNSHOWN),
        Field(
            name="config", kind=Kind.OBJECT, default=None, secrecy=Secrecy.UNSHOWN, nullable=True
        ),
        Field(name="gateway_credential_id", read_only=True),
    ),
    "git": (
        Field(name="provider", default="github", max_length=20),
        Field(name="credential_type", default="token", choices=("token", "ssh")),
        Field(name="username"),
        Field(name="ssh_private_key", secrecy=Secrecy.WHOLE),
        Field(name="access_token", secrecy=Secrecy.MASKED),
        Field(name="webhook_secret", secrecy=Secrecy.WHOLE),
    ),
    "tool": (
        Field(name="tool_type", default="api", max_length=20),
        Field(name="config", kind=Kind.OBJECT, default={}, secrecy=Secrecy.BY_NAME),
        Field(name="is_preferred", kind=Kind.BOOLEAN, default=False),
    ),
}

# A query or fragment would swallow the path of the call: then the creator, not the provider's API,
# says what of a local service is asked for.
_URL = re.compile(r"(https?://[^\s/?#@\\]+(/[^\s?#]*)?)?", re.IGNORECASE)
_URL_MESSAGE = "must match ^(https?://[^\\s/?#@\\\\]+(/[^\\s?#]*)?)?$"
_HEADER_BREAK = re.compile(r"[\r\n\0]")
_SECRET_NAMES = ("key", "token", "secret", "password", "auth", "cookie")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with the value at *path* inside a `detail`."""

    path: tuple[str, ...]
    message: str


def find_problems(kind: CredentialType, sent: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield every problem of a `detail` as sent. Unknown and read-only fields are ignored."""
    for field in FIELDS[kind]:
        if field.name in sent and not field.read_only:
            yield from _check(field, sent[field.name])


def build_values(kind: CredentialType, sent: Mapping[str, Any], *, name: str) -> Values:
    """Return the values of a new credential called *name*."""
    values = {field.name: field.default for field in FIELDS[kind]}
    if kind == "gateway":
        values["gateway_credential_id"] = name
    return merge(kind, values, sent)


def merge(kind: CredentialType, values: Values, sent: Mapping[str, Any]) -> Values:
    """Return *values* with the fields of *sent*; a secret sent back as shown stays as it is."""
    merged = dict(values)
    for field in FIELDS[kind]:
        if field.name in sent and not field.read_only:
            merged[field.name] = _unmask(field, values[field.name], sent[field.name])
    return merged


def merge_foreign(kind: CredentialType, values: Values, sent: Mapping[str, Any]) -> Values:
    """Merge as `merge` what somebody other than the creator sends.

    Whoever points the credential at another place must know the key: the stored one is cleared, or
    it would be sent to a server of the changer's choice.
    """
    merged = merge(kind, values, sent)
    if kind != "llm" or _origin(values["base_url"]) == _origin(merged["base_url"]):
        return merged
    shown = mask(values["api_key"])
    return merged if sent.get("api_key", shown) != shown else {**merged, "api_key": ""}


def show(kind: CredentialType, values: Values) -> Values:
    """Return what everybody may see."""
    shown = {}
    for field in FIELDS[kind]:
        value = values[field.name]
        match field.secrecy:
            case Secrecy.OPEN:
                shown[field.name] = value
            case Secrecy.MASKED:
                shown[field.name] = mask(value)
            case Secrecy.WHOLE:
                shown[field.name] = value and "****"
            case Secrecy.BY_NAME:
                shown[field.name] = _mask_inside(value, secret=False)
            case Secrecy.UNSHOWN:
                pass
    return shown


def mask(value: str) -> str:
    """Hide a secret; never more than half of it is shown, and the empty text stays empty."""
    if len(value) < 16:
        return value and "****"
    return f"{value[:4]}****{value[-4:]}"


def _check(field: Field, value: object) -> Iterator[Problem]:
    path = (field.name,)
    if value is None:
        if not field.nullable:
            yield Problem(path, "must not be null")
        return
    match field.kind:
        case Kind.TEXT | Kind.URL:
            message = _judge_text(field, value)
            if message:
                yield Problem(path, message)
        case Kind.BOOLEAN:
            if not isinstance(value, bool):
                yield Problem(path, "must be a boolean")
        case Kind.OBJECT | Kind.HEADERS:
            if not isinstance(value, dict):
                yield Problem(path, "must be an object")
            elif field.kind is Kind.HEADERS:
                yield from _check_headers(path, value)


def _judge_text(field: Field, value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    if field.choices and value not in field.choices:
        return f"must be one of: {', '.join(field.choices)}"
    if len(value) > field.max_length:
        return f"must be at most {field.max_length} characters"
    if field.kind is Kind.URL and not _is_url(value):
        return _URL_MESSAGE
    return None


def _check_headers(path: tuple[str, ...], headers: dict[str, object]) -> Iterator[Problem]:
    for name, value in headers.items():
        if not isinstance(value, str):
            message = "must not be null" if value is None else "must be a string"
            yield Problem((*path, name), message)
        elif _HEADER_BREAK.search(name) or _HEADER_BREAK.search(value):
            yield Problem((*path, name), "must be valid text")


def _is_url(value: str) -> bool:
    try:
        _origin(value)
    except ValueError:
        return False
    return _URL.fullmatch(value) is not None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of *url*; raises ValueError where they cannot be told."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _unmask(field: Field, current: Any, sent: Any) -> Any:
    match field.secrecy:
        case Secrecy.MASKED:
            return current if sent == mask(current) else sent
        case Secrecy.WHOLE:
            return current if current and sent == "****" else sent
        case Secrecy.BY_NAME:
            return _unmask_inside(current, sent, secret=False)
        case _:
            return sent


def _mask_inside(value: object, *, secret: bool) -> object:
    """Mask the texts inside *value* whose name sounds secret; items of a list share its name."""
    if isinstance(value, dict):
        return {n: _mask_inside(item, secret=_sounds_secret(n)) for n, item in value.items()}
    if isinstance(value, list):
        return [_mask_inside(item, secret=secret) for item in value]
    return mask(value) if secret and isinstance(value, str) else value


def _unmask_inside(current: object, sent: object, *, secret: bool) -> object:
    """Put the current texts back where *sent* holds their masks, place by place."""
    if isinstance(sent, dict):
        old = current if isinstance(current, dict) else {}
        return {
            name: _unmask_inside(old.get(name), item, secret=_sounds_secret(name))
            for name, item in sent.items()
        }
    if isinstance(sent, list):
        items = current if isinstance(current, list) else []
        padded = [*items, *[None] * (len(sent) - len(items))]
        return [
            _unmask_inside(old, item, secret=secret)
            for old, item in zip(padded, sent, strict=False)
        ]
    if secret and isinstance(current, str) and sent == mask(current):
        return current
    return sent


def _sounds_secret(name: str) -> bool:
    lowered = name.lower()
    return any(word in lowered for word in _SECRET_NAMES)

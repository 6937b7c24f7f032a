"""Every setting of the server: type, default, range and one sentence each.

Read once at start by `load_settings`, frozen, and passed down through constructors. Nothing else in
the package looks at the environment. Contract: settings.md.
"""

import ipaddress
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from pipelit.errors import PipelitError

DEFAULT_DIR = "~/.config/pipelit"
ALIASED = frozenset({
    "platform_base_url", "cors_allow_all_origins", "database_url", "redis_url",
    "field_encryption_key", "log_level", "log_file", "max_execution_seconds",
    "zombie_execution_threshold_seconds", "gateway_url", "gateway_admin_token",
    "gateway_send_token", "gateway_inbound_token", "sandbox_mode",
})  # fmt: skip
"""Settings whose name without `PIPELIT_` is accepted too."""

STORED = frozenset({
    "platform_base_url", "cors_allow_all_origins", "database_url", "redis_url", "log_level",
    "log_file", "zombie_execution_threshold_seconds", "sandbox_mode",
})  # fmt: skip
"""Settings that `settings.json` in the data directory may hold (`PATCH /settings/`)."""

WITHOUT_EFFECT = frozenset({
    "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "LOG_MAX_BYTES", "LOG_BACKUP_COUNT",
})  # fmt: skip
"""Known from other installations; accepted and ignored."""

CLIENT_VARIABLES = frozenset({"PIPELIT_URL", "PIPELIT_API_KEY"})
"""Read by the command line client, not by the server."""

_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class SettingsError(PipelitError):
    """A value cannot be used, so the server does not start.

    `problems` holds one sentence per bad setting; the text never contains the value itself.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _problem(message: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "{message}", {"message": message})


def _parse_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    parsed = _BOOLS.get(value.strip().lower()) if isinstance(value, str) else None
    if parsed is None:
        raise _problem("must be a boolean")
    return parsed


def _parse_int(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
        return int(value)
    raise _problem("must be an integer")


def _parse_float(value: object) -> float:
    try:
        parsed = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        parsed = math.nan
    if isinstance(value, bool) or not math.isfinite(parsed):
        raise _problem("must be a number")
    return parsed


def _parse_path(value: object) -> object:
    return Path(value).expanduser().absolute() if isinstance(value, str | Path) else value


def _parse_optional_path(value: object) -> object:
    return None if value == "" else _parse_path(value)


def _split(separator: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(separator) if part.strip())


def _check_url(value: str, *, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port  # reading it is the check
    except ValueError:
        parts = urlsplit("")
    if parts.scheme.split("+")[0] not in schemes or not (parts.netloc or parts.scheme == "sqlite"):
        raise _problem(f"must be a URL with one of: {', '.join(schemes)}")
    return value


def _check_database_url(value: str) -> str:
    if value.startswith(("sqlite:///", "sqlite+pysqlite:///")):
        return value
    return _check_url(value, schemes=("sqlite", "postgresql"))


def _check_http_url(value: str) -> str:
    return value and _check_url(value, schemes=("http", "https"))


def _check_redis_url(value: str) -> str:
    return value and _check_url(value, schemes=("redis", "rediss", "unix"))


def _check_egress(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not (_is_network(value) or _is_host_port(value)):
            raise _problem("must be a comma list of CIDR or host:port")
    return values


def _is_network(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def _is_host_port(value: str) -> bool:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", value)
    return found is not None and 0 < int(found[3]) <= 65535


Bool = Annotated[bool, BeforeValidator(_parse_bool)]
Int = Annotated[int, BeforeValidator(_parse_int)]
Float = Annotated[float, BeforeValidator(_parse_float)]
Directory = Annotated[Path, BeforeValidator(_parse_path)]
File = Annotated[Path | None, BeforeValidator(_parse_optional_path)]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]


class Settings(BaseModel):
    """All settings in force. Frozen; secrets and URLs with passwords stay out of `repr`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    data_dir: Directory = Field(
        default=Path(DEFAULT_DIR).expanduser(),
        description="Data directory: database, key file, settings.json, workspaces, backups.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: Int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    platform_base_url: HttpUrl = Field(
        default="http://localhost:8000", description="How this server is reached from outside."
    )
    cors_allow_all_origins: Bool = Field(
        default=False, description="Let scripts of every web site call the API."
    )
    max_request_bytes: Int = Field(
        default=1_048_576, ge=1024, description="Largest request body, in bytes."
    )
    shutdown_grace_seconds: Float = Field(
        default=10.0, ge=0, description="Seconds that running nodes get to finish at shutdown."
    )
    metrics_token: SecretStr = Field(
        default=SecretStr(""), description="Bearer token that opens /metrics to a collector."
    )
    database_url: Annotated[str, AfterValidator(_check_database_url)] = Field(
        default_factory=lambda data: f"sqlite:///{data['data_dir']}/db.sqlite3",
        repr=False,
        description="Database: sqlite (default: db.sqlite3 in the data directory) or postgresql.",
    )
    redis_url: Annotated[str, AfterValidator(_check_redis_url)] = Field(
        default="", repr=False, description="Probed by /health if set; nothing else uses it."
    )
    field_encryption_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key that encrypts stored secrets; empty: the key file in the data directory.",
    )
    execution_retention_days: Int = Field(
        default=0, ge=0, description="Delete terminal executions after so many days; 0 keeps them."
    )
    execution_retention_max: Int = Field(
        default=0, ge=0, description="Keep at most so many terminal executions; 0: no limit."
    )
    audit_log_max: Int = Field(
        default=100_000, ge=1000, description="Entries of the audit log: acts and refusals each."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="Least severe level that is logged."
    )
    log_file: File = Field(default=None, description="Log file; empty: standard output.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="Log lines as json or console text; auto asks the terminal."
    )
    max_execution_seconds: Int = Field(
        default=900, ge=1, le=86400, description="Time limit of workflows without their own."
    )
    max_concurrent_executions: Int = Field(
        default=1000, ge=1, description="Root executions that run at once; others wait as pending."
    )
    max_parallel_nodes: Int = Field(
        default=10, ge=1, description="Nodes that run at once in one execution."
    )
    loop_max_iterations: Int = Field(
        default=1000, ge=1, description="Iterations of a loop that names no limit."
    )
    max_node_output_bytes: Int = Field(
        default=1_048_576, ge=1024, description="Largest output of one node, in bytes."
    )
    max_state_bytes: Int = Field(
        default=16_777_216, ge=1024, description="Largest state of one execution, in bytes."
    )
    max_conversation_messages: Int = Field(
        default=2000, ge=10, description="Messages kept in one conversation."
    )
    confirmation_timeout_seconds: Int = Field(
        default=300, ge=1, description="Seconds a question to a person stays open."
    )
    zombie_execution_threshold_seconds: Int = Field(
        default=0, ge=0, description="Age limit for taking up executions without owner; 0: off."
    )
    model_prices: File = Field(default=None, description="JSON file with prices of models.")
    egress_allow: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda value: _split(",", value)),
        AfterValidator(_check_egress),
    ] = Field(default=(), description="CIDR or host:port that workflows may reach in any case.")
    searxng_url: HttpUrl = Field(
        default="http://localhost:8888", description="SearXNG server behind the web_search node."
    )
    gateway_url: HttpUrl = Field(default="", description="Message gateway; empty: none.")
    gateway_admin_token: SecretStr = Field(
        default=SecretStr(""), description="Token for keeping credentials at the gateway."
    )
    gateway_send_token: SecretStr = Field(
        default=SecretStr(""), description="Token for sending replies through the gateway."
    )
    gateway_inbound_token: SecretStr = Field(
        default=SecretStr(""), description="Token the gateway presents to POST /inbound."
    )
    sandbox_mode: Literal["auto", "bwrap"] = Field(
        default="auto", description="Sandbox for code: both values mean bubblewrap or refusal."
    )
    skill_dirs: Annotated[tuple[Path, ...], BeforeValidator(lambda value: _split(":", value))] = (
        Field(default=(), description="Further skill directories, ':' between them.")
    )


def variable(field: str) -> str:
    """Return the environment variable of a setting: `data_dir` → `PIPELIT_DIR`."""
    return "PIPELIT_DIR" if field == "data_dir" else f"PIPELIT_{field.upper()}"


def load_settings(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """Collect every setting from flags, environment, `settings.json` and defaults, in this order.

    Args:
        flags: command line values by field name; None or absent: not given.
        environ: the process environment. An empty variable counts as not set.

    Raises:
        SettingsError: a value or `settings.json` cannot be used; nothing was changed.

    Contract: settings.md §1.
    """
    given = {field: _find(field, flags, environ) for field in Settings.model_fields}
    values: dict[str, Any] = {field: text for field, text in given.items() if text is not None}
    directory = Path(values.get("data_dir", DEFAULT_DIR)).expanduser()
    try:
        return Settings(**{**_load_stored(directory / "settings.json"), **values})
    except ValidationError as error:
        problems = [
            f"Invalid setting {variable(field)}: {message}"
            for field, message in find_problems(error)
        ]
        raise SettingsError(*problems) from None


def find_problems(error: ValidationError) -> list[tuple[str, str]]:
    """Return field and problem of each bad value, worded as README §4 of the contract words it."""
    # A default that could not be worked out is the shadow of another error.
    real = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
    return [(str(one["loc"][0]), _describe(one)) for one in real]


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the `PIPELIT_…` variables that name no setting, sorted; worth one warning each."""
    known = {variable(field) for field in Settings.model_fields} | CLIENT_VARIABLES
    known |= {f"PIPELIT_{name}" for name in WITHOUT_EFFECT}
    return tuple(sorted(n for n in environ if n.startswith("PIPELIT_") and n not in known))


def _find(field: str, flags: Mapping[str, str | None], environ: Mapping[str, str]) -> str | None:
    flag = flags.get(field)
    if flag is not None:
        return flag
    alias = environ.get(field.upper()) if field in ALIASED else None
    return environ.get(variable(field)) or alias or None


def _load_stored(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"Cannot read {path}: {type(error).__name__}.") from error
    if not isinstance(stored, dict):
        raise SettingsError(f"Cannot read {path}: it must hold a JSON object.")
    return {name: value for name, value in stored.items() if name in STORED and value is not None}


def _describe(error: ErrorDetails) -> str:
    """Word one pydantic error."""
    context = error.get("ctx", {})
    match error["type"]:
        case "greater_than_equal":
            return f"must be >= {context['ge']}"
        case "less_than_equal":
            return f"must be <= {context['le']}"
        case "literal_error":
            expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
            return f"must be one of: {expected}"
        case "string_too_short":
            return "must be at least 1 characters"
        case "string_type":
            return "must be a string"
        case _:
            return error["msg"]

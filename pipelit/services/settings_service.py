"""Settings: shown to everybody, changed by admins, some at once. Contract: beyond.md §9."""

import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import trio
from pydantic import ValidationError

from pipelit.errors import Invalid, Unavailable
from pipelit.services.environment import Environment, Findings, judge
from pipelit.settings import Settings, find_problems
from pipelit.store import Store
from pipelit.store.queries.workspaces import find_workspace_by_name

NO_STORAGE = "Storage is not available."
HOT = frozenset({"log_level", "zombie_execution_threshold_seconds"})
"""Fields that take effect at once."""

_MASK = "***"
_PASSWORDS = (
    re.compile(r"^(?P<before>[A-Za-z0-9+.-]+://[^:/@]*:)(?P<password>[^@]*)(?P<after>@)"),
    re.compile(r"(?P<before>[?&][a-z]*password=)(?P<password>[^&#]*)(?P<after>)"),
)
"""Where a URL may hold a password."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The values in force. Passwords in URLs are masked; `redis_url` is null without a broker."""

    pipelit_dir: str
    sandbox_mode: Literal["auto", "bwrap"]
    database_url: str
    redis_url: str | None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    log_file: str
    platform_base_url: str
    cors_allow_all_origins: bool
    zombie_execution_threshold_seconds: int


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """The server's settings and what its machine offers."""

    config: Config
    environment: Environment


class SettingsChange(msgspec.Struct, frozen=True, kw_only=True):
    """The values in force after a change, and which of the changed fields wait for a restart."""

    config: Config
    hot_reloaded: list[str]
    restart_required: list[str]


class EnvironmentView(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine offers."""

    environment: Environment


class LiveSettings:
    """The settings that change while the server runs. One per server; read at every use."""

    def __init__(self, settings: Settings) -> None:
        self.log_level = settings.log_level
        self.zombie_execution_threshold_seconds = settings.zombie_execution_threshold_seconds


class SettingsService:
    """What the contract's settings section lets people do.

    Args:
        settings: those the server was started with.
        look: probes the machine; has its own deadline.
        set_level: makes a log level count from now on.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        live: LiveSettings,
        *,
        look: Callable[[], Awaitable[Findings]],
        set_level: Callable[[str], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._live = live
        self._look = look
        self._set_level = set_level
        self._found: Findings | None = None
        self._looking = trio.Lock()
        # One change of the file at a time: each keeps what the others stored.
        self._writing = trio.Lock()

    async def get(self) -> SettingsView:
        """Return the values in force and the environment as it was last probed."""
        return SettingsView(config=self._config(), environment=await self._environment())

    async def recheck_environment(self) -> EnvironmentView:
        """Probe the machine again."""
        async with self._looking:
            self._found = await self._look()
        return EnvironmentView(environment=await self._environment())

    async def change(self, fields: Mapping[str, Any]) -> SettingsChange:
        """Store new values in `settings.json`, and apply those that take effect at once.

        Args:
            fields: by name, in the order of the request. A masked password stands for the present.

        Raises:
            Invalid: a value cannot be used; nothing was changed.
            Unavailable: the file cannot be written.
        """
        wanted = {name: self._meant(name, value) for name, value in fields.items()}
        _require_valid(wanted)
        present = self._in_force()
        changed = [name for name, value in wanted.items() if value != present[name]]
        if wanted:
            async with self._writing:
                path = self._settings.data_dir / "settings.json"
                await trio.to_thread.run_sync(partial(_store_values, path, wanted))
                self._apply(wanted)
        return SettingsChange(
            config=self._config(),
            hot_reloaded=[name for name in changed if name in HOT],
            restart_required=[name for name in changed if name not in HOT],
        )

    def _apply(self, wanted: Mapping[str, Any]) -> None:
        live = self._live
        if "log_level" in wanted:
            live.log_level = wanted["log_level"]
            self._set_level(live.log_level)
        live.zombie_execution_threshold_seconds = wanted.get(
            "zombie_execution_threshold_seconds", live.zombie_execution_threshold_seconds
        )

    def _meant(self, name: str, value: Any) -> Any:
        if name not in {"database_url", "redis_url"}:
            return value
        return unmask(value or "", getattr(self._settings, name))

    def _in_force(self) -> dict[str, Any]:
        """Return the values in force by name, passwords in clear."""
        settings = self._settings
        return {
            "sandbox_mode": settings.sandbox_mode,
            "database_url": settings.database_url,
            "redis_url": settings.redis_url,
            "log_level": self._live.log_level,
            "log_file": str(settings.log_file or ""),
            "platform_base_url": settings.platform_base_url,
            "cors_allow_all_origins": settings.cors_allow_all_origins,
            "zombie_execution_threshold_seconds": self._live.zombie_execution_threshold_seconds,
        }

    def _config(self) -> Config:
        values = self._in_force()
        for name in ("database_url", "redis_url"):
            values[name] = mask(values[name])
        values["redis_url"] = values["redis_url"] or None
        return Config(pipelit_dir=str(self._settings.data_dir), **values)

    async def _environment(self) -> Environment:
        async with self._looking:
            if self._found is None:
                self._found = await self._look()
            found = self._found
        default = await self._store.read(partial(find_workspace_by_name, name="default"))
        return judge(found, allow_network=default is not None and default.allow_network)


def mask(url: str) -> str:
    """Return *url* with `***` in place of its passwords."""
    for pattern in _PASSWORDS:
        url = pattern.sub(rf"\g<before>{_MASK}\g<after>", url)
    return url


def unmask(url: str, present: str) -> str:
    """Return *url* with the passwords of *present* where it has `***`."""
    for pattern in _PASSWORDS:
        sent, known = pattern.search(url), pattern.search(present)
        if sent is not None and sent["password"] == _MASK and known is not None:
            url = url[: sent.start("password")] + known["password"] + url[sent.end("password") :]
    return url


def _require_valid(wanted: Mapping[str, Any]) -> None:
    """Check values as the start would check them.

    Raises:
        Invalid: with one problem per bad value.
    """
    try:
        Settings(**wanted)
    except ValidationError as error:
        found: Sequence[tuple[str, str]] = find_problems(error)
        raise Invalid(problems=[f"body.{name}: {text}" for name, text in found]) from None


def _store_values(path: Path, values: Mapping[str, Any]) -> None:
    """Write *values* over those stored at *path*: wholly or not at all, for the owner only."""
    try:
        stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if not isinstance(stored, dict):
            raise Unavailable(NO_STORAGE)
        new = path.with_suffix(".new")
        with open(new, "w", encoding="utf-8", opener=_private) as file:
            json.dump({**stored, **values}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except (OSError, ValueError) as error:
        raise Unavailable(NO_STORAGE) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

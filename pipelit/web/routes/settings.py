"""Settings over HTTP. Contract: beyond.md §9.

Handlers only translate: the rules are `pipelit.services.settings_service`'s.
"""

from typing import Annotated, Literal

from pydantic import Field

from pipelit.services.settings_service import (
    EnvironmentView,
    SettingsChange,
    SettingsService,
    SettingsView,
)
from pipelit.web.call import Call
from pipelit.web.models import Integer, RequestModel
from pipelit.web.routing import Auth, Example, Route

Seconds = Annotated[int, Integer(0)]


class ChangeSettings(RequestModel):
    """Settings to store. In a URL the password `***` stands for the present one."""

    sandbox_mode: Literal["auto", "bwrap"] = "auto"
    database_url: str = Field(default="", repr=False)
    redis_url: str | None = Field(default=None, repr=False)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_file: str = ""
    platform_base_url: str = ""
    cors_allow_all_origins: bool = False
    zombie_execution_threshold_seconds: Seconds = 0


async def get(call: Call) -> SettingsView:
    """Return settings and environment."""
    return await call.service(SettingsService).get()


async def change(call: Call[ChangeSettings]) -> SettingsChange:
    """Store settings."""
    # The model does not keep the order of the request, which the answer follows.
    names = call.raw_body if isinstance(call.raw_body, dict) else ()
    sent = {name: getattr(call.body, name) for name in names if name in call.body.model_fields_set}
    return await call.service(SettingsService).change(sent)


async def recheck_environment(call: Call) -> EnvironmentView:
    """Probe the machine again."""
    return await call.service(SettingsService).recheck_environment()


_CONFIG = {
    "pipelit_dir": "/var/lib/pipelit",
    "sandbox_mode": "auto",
    "database_url": "postgresql://pipelit:***@db.example/pipelit",
    "redis_url": None,
    "log_level": "INFO",
    "log_file": "",
    "platform_base_url": "http://localhost:8000",
    "cors_allow_all_origins": False,
    "zombie_execution_threshold_seconds": 0,
}
_ENVIRONMENT = {
    "os": "Linux",
    "arch": "x86_64",
    "container": None,
    "bwrap_available": True,
    "rootfs_ready": True,
    "sandbox_mode": "bwrap",
    "capabilities": {
        "runtimes": {
            "python3": {"available": True, "version": "3.11.7", "path": "/usr/bin/python3"},
            "node": {"available": False, "version": None, "path": None},
        },
        "shell_tools": {
            "bash": {"available": True, "tier": 1},
            "jq": {"available": False, "tier": 2},
        },
        "network": {"dns": False, "http": False},
    },
    "tier1_met": True,
    "tier2_warnings": ["Tool 'jq' is not available"],
    "gate": {"passed": True, "blocked_reason": None},
}

ROUTES = (
    Route(
        "GET",
        "/settings/",
        get,
        auth=Auth.BEARER,
        section="settings",
        summary="Return the settings in force and what the machine offers.",
        response=SettingsView,
        examples=(
            Example(
                path="/api/v1/settings/",
                response={"config": _CONFIG, "environment": _ENVIRONMENT},
            ),
        ),
    ),
    Route(
        "PATCH",
        "/settings/",
        change,
        auth=Auth.ADMIN,
        section="settings",
        act="settings_change",
        summary="Store settings; some take effect at once, the others at the next start.",
        body=ChangeSettings,
        response=SettingsChange,
        examples=(
            Example(
                path="/api/v1/settings/",
                body={"log_level": "DEBUG", "cors_allow_all_origins": True},
                response={
                    "config": {**_CONFIG, "log_level": "DEBUG"},
                    "hot_reloaded": ["log_level"],
                    "restart_required": ["cors_allow_all_origins"],
                },
            ),
        ),
    ),
    Route(
        "POST",
        "/settings/recheck-environment/",
        recheck_environment,
        auth=Auth.ADMIN,
        section="settings",
        summary="Probe again what the machine offers; takes up to 15 s.",
        response=EnvironmentView,
        examples=(
            Example(
                path="/api/v1/settings/recheck-environment/",
                response={"environment": _ENVIRONMENT},
            ),
        ),
    ),
)

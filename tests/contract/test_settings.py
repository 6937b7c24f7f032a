"""beyond.md §9 over a real socket: values shown, stored, applied."""

import json
import stat
from typing import Any

import pytest
import trio

from pipelit.settings import load_settings
from tests.kit.control import Control, control, settings
from tests.kit.store import migrated, store, store_url

__all__ = ["control", "migrated", "settings", "store", "store_url"]

ADMIN_ONLY = (403, "Admin access required.")
RECHECK = "/settings/recheck-environment/"
LEVELS = "DEBUG, INFO, WARNING, ERROR, CRITICAL"


async def test_everybody_sees_the_values_in_force(control: Control) -> None:
    """Field by field; passwords in URLs are masked."""
    assert (await control.get("/settings/"))["config"] == {
        "pipelit_dir": str(control.data),
        "sandbox_mode": "auto",
        "database_url": "postgresql://pipelit:***@db.example/pipelit",
        "redis_url": "redis://:***@broker:6379/0",
        "log_level": "INFO",
        "log_file": "",
        "platform_base_url": "http://localhost:8000",
        "cors_allow_all_origins": False,
        "zombie_execution_threshold_seconds": 0,
    }


async def test_a_change_tells_what_counts_at_once(control: Control) -> None:
    """The changed fields in the order of the body; the values in force, not those to come."""
    before = (await control.get("/settings/"))["config"]

    changed = await control.change(
        {
            "cors_allow_all_origins": True,
            "zombie_execution_threshold_seconds": 600,
            "platform_base_url": "https://pipelit.example",
            "log_level": "DEBUG",
            "pipelit_dir": "/elsewhere",
            "sandbox_mode": "bwrap",
            "log_file": "/var/log/pipelit.log",
        }
    )

    hot = {"log_level": "DEBUG", "zombie_execution_threshold_seconds": 600}
    assert changed == {
        "config": before | hot,
        "hot_reloaded": ["zombie_execution_threshold_seconds", "log_level"],
        "restart_required": [
            "cors_allow_all_origins",
            "platform_base_url",
            "sandbox_mode",
            "log_file",
        ],
    }
    assert (await control.get("/settings/"))["config"] == before | hot
    assert control.levels == ["DEBUG"]
    assert control.live.zombie_execution_threshold_seconds == 600


async def test_a_change_is_found_by_the_next_start(control: Control) -> None:
    """In `settings.json`, for the owner only; environment variables win over it."""
    await control.change({"log_level": "ERROR", "redis_url": None})
    await control.change({"cors_allow_all_origins": True, "log_level": "WARNING"})

    flags = {"data_dir": str(control.data)}
    next_start = load_settings(flags, {})
    assert (next_start.log_level, next_start.cors_allow_all_origins) == ("WARNING", True)
    assert next_start.redis_url == ""
    assert load_settings(flags, {"PIPELIT_LOG_LEVEL": "DEBUG"}).log_level == "DEBUG"
    assert stat.S_IMODE((control.data / "settings.json").stat().st_mode) == 0o600
    assert [path.name for path in control.data.glob("settings*")] == ["settings.json"]


async def test_current_values_change_nothing(control: Control) -> None:
    """They are stored, and neither list names them; nothing at all is not even stored."""
    nothing = await control.change({})
    assert (nothing["hot_reloaded"], nothing["restart_required"]) == ([], [])
    assert not (control.data / "settings.json").exists()

    same = await control.change({"log_level": "INFO", "cors_allow_all_origins": False})

    assert (same["hot_reloaded"], same["restart_required"]) == ([], [])
    assert control.stored() == {"log_level": "INFO", "cors_allow_all_origins": False}


@pytest.mark.parametrize(
    ("sent", "stored", "restart"),
    [
        (
            {"database_url": "postgresql://pipelit:***@db.example/pipelit"},
            "postgresql://pipelit:s3cret@db.example/pipelit",
            [],
        ),
        (
            {"database_url": "postgresql://pipelit:***@other.example/pipelit"},
            "postgresql://pipelit:s3cret@other.example/pipelit",
            ["database_url"],
        ),
        (
            {"database_url": "postgresql://pipelit:n3w@db.example/pipelit"},
            "postgresql://pipelit:n3w@db.example/pipelit",
            ["database_url"],
        ),
        ({"database_url": "sqlite:////x/y.db"}, "sqlite:////x/y.db", ["database_url"]),
        ({"redis_url": "redis://:***@broker:6379/0"}, "redis://:hush@broker:6379/0", []),
        ({"redis_url": None}, "", ["redis_url"]),
    ],
)
async def test_a_masked_password_stays(
    control: Control, sent: dict[str, Any], stored: str, restart: list[str]
) -> None:
    """`***` stands for the present password; everything else is taken as sent."""
    changed = await control.change(sent)

    assert list(control.stored().values()) == [stored]
    assert changed["restart_required"] == restart
    for secret in ("s3cret", "n3w", "hush"):
        assert secret not in json.dumps(changed)


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        (
            {
                "sandbox_mode": "none",
                "database_url": None,
                "redis_url": 1,
                "log_level": "info",
                "log_file": None,
                "platform_base_url": None,
                "cors_allow_all_origins": "true",
                "zombie_execution_threshold_seconds": -1,
            },
            [
                "body.sandbox_mode: must be one of: auto, bwrap",
                "body.database_url: must not be null",
                "body.redis_url: must be a string",
                f"body.log_level: must be one of: {LEVELS}",
                "body.log_file: must not be null",
                "body.platform_base_url: must not be null",
                "body.cors_allow_all_origins: must be a boolean",
                "body.zombie_execution_threshold_seconds: must be >= 0",
            ],
        ),
        (
            {"database_url": "mysql://x:y@z/", "redis_url": "http://x", "platform_base_url": "x"},
            [
                "body.platform_base_url: must be a URL with one of: http, https",
                "body.database_url: must be a URL with one of: sqlite, postgresql",
                "body.redis_url: must be a URL with one of: redis, rediss, unix",
            ],
        ),
    ],
)
async def test_a_wrong_value_is_explained(
    control: Control, body: dict[str, Any], problems: list[str]
) -> None:
    """What the start would refuse is refused here; nothing is stored or applied."""
    refused = await control.refused("PATCH", "/settings/", body, key="ada-key")

    assert refused == (422, {"validation_errors": problems})
    assert not (control.data / "settings.json").exists()
    assert control.levels == []


@pytest.mark.parametrize("content", ["{", "[]"])
async def test_a_broken_file_is_not_overwritten(control: Control, content: str) -> None:
    """Somebody edited it: the change is refused, and not applied either."""
    path = control.data / "settings.json"
    path.write_text(content)

    refused = await control.refused("PATCH", "/settings/", {"log_level": "DEBUG"}, key="ada-key")

    assert refused == (503, "Storage is not available.")
    assert path.read_text() == content
    assert control.levels == []


async def test_changes_at_once_keep_each_other(control: Control) -> None:
    """Each is stored over what the others stored."""
    bodies: list[dict[str, Any]] = [
        {"log_level": "ERROR"},
        {"cors_allow_all_origins": True},
        {"platform_base_url": "http://p"},
        {"sandbox_mode": "bwrap"},
    ]

    async with trio.open_nursery() as nursery:
        for body in bodies:
            nursery.start_soon(control.change, body)

    assert control.stored() == {name: value for body in bodies for name, value in body.items()}


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/settings/"), ("POST", RECHECK)])
async def test_only_admins_change_anything(control: Control, method: str, path: str) -> None:
    """Before the body is looked at."""
    assert await control.refused(method, path, {"log_level": 1}) == ADMIN_ONLY
    assert control.machine.looks == 0


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/settings/"), ("PATCH", "/settings/"), ("POST", RECHECK)]
)
async def test_nobody_enters_without_a_key(control: Control, method: str, path: str) -> None:
    """Every route wants a Bearer token."""
    refused = await control.refused(method, path, key="wrong")

    assert refused == (401, "Invalid or missing API key.")

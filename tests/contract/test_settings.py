"""beyond.md §9 over a real socket, with a real data directory."""

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import update

from pipelit.services.environment import RUNTIMES, TIER_1, TIER_2, Findings
from pipelit.services.settings_service import LiveSettings, SettingsService
from pipelit.settings import Settings, load_settings
from pipelit.store import Store, schema
from pipelit.store.queries.workspaces import insert_workspace
from pipelit.web.call import Services
from pipelit.web.routes import settings as routes
from tests.kit.canvas import START, insert_people
from tests.kit.served import Served
from tests.kit.store import migrated, store, store_url
from tests.kit.web_server import serving

__all__ = ["migrated", "store", "store_url"]

ADMIN_ONLY = (403, "Admin access required.")
RECHECK = "/settings/recheck-environment/"
LEVELS = "DEBUG, INFO, WARNING, ERROR, CRITICAL"
NO_SANDBOX = "No sandbox available. Install bubblewrap (apt install bubblewrap)."
ALL_TOOLS = {name: f"/usr/bin/{name}" for name in (*RUNTIMES, *TIER_1, *TIER_2)}


class Machine:
    """What the server finds, and how often it looked."""

    def __init__(self) -> None:
        self.looks = 0
        self.programs = dict(ALL_TOOLS)
        self.problem = ""

    async def look(self) -> Findings:
        self.looks += 1
        await trio.lowlevel.checkpoint()
        return Findings(
            os="Linux",
            arch="x86_64",
            container="podman",
            programs=dict(self.programs),
            versions={"python3": "3.11.7"},
            sandbox_problem=self.problem,
        )


class Control(Served, frozen=True, kw_only=True):
    """The server under test and what it did."""

    data: Path
    store: Store
    live: LiveSettings
    levels: list[str]
    machine: Machine

    async def change(self, body: dict[str, Any]) -> Any:
        """Change settings as an admin."""
        response = await self.call("PATCH", "/settings/", body, key="ada-key")
        assert response.status_code == 200, response.text
        return response.json()

    async def environment(self) -> Any:
        """Return the environment as everybody sees it."""
        return (await self.get("/settings/"))["environment"]

    def stored(self) -> Any:
        """Return what `settings.json` holds."""
        return json.loads((self.data / "settings.json").read_text())


def make_settings(data: Path, **values: Any) -> Settings:
    return Settings(data_dir=data, **values)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What the server was started with."""
    return make_settings(
        tmp_path,
        database_url="postgresql://pipelit:s3cret@db.example/pipelit",
        redis_url="redis://:hush@broker:6379/0",
    )


@pytest.fixture
async def control(store: Store, settings: Settings) -> AsyncIterator[Control]:
    """A running server in whose data directory nothing was stored yet."""
    await store.write(insert_people)
    levels: list[str] = []
    live, machine = LiveSettings(settings), Machine()
    service = SettingsService(store, settings, live, look=machine.look, set_level=levels.append)
    async with serving(routes.ROUTES, services=Services(service)) as running:
        yield Control(
            client=running.client,
            data=settings.data_dir,
            store=store,
            live=live,
            levels=levels,
            machine=machine,
        )


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


async def test_a_capable_machine_is_shown_field_by_field(control: Control) -> None:
    """Every probed program is listed; what did not tell its version has none."""
    environment = await control.environment()

    tools = environment["capabilities"].pop("shell_tools")
    assert environment == {
        "os": "Linux",
        "arch": "x86_64",
        "container": "podman",
        "bwrap_available": True,
        "rootfs_ready": True,
        "sandbox_mode": "bwrap",
        "capabilities": {
            "runtimes": {
                name: {
                    "available": True,
                    "version": "3.11.7" if name == "python3" else None,
                    "path": f"/usr/bin/{name}",
                }
                for name in ("python3", "pip3", "node", "npm")
            },
            "network": {"dns": False, "http": False},
        },
        "tier1_met": True,
        "tier2_warnings": [],
        "gate": {"passed": True, "blocked_reason": None},
    }
    first = "bash cat ls cp mv mkdir rm chmod grep sed head tail wc"
    second = "find sort awk xargs tee curl wget git tar unzip jq"
    assert tools == {
        **{name: {"available": True, "tier": 1} for name in first.split()},
        **{name: {"available": True, "tier": 2} for name in second.split()},
    }


@pytest.mark.parametrize(
    ("problem", "missing", "reason"),
    [
        (NO_SANDBOX, (), NO_SANDBOX),
        (NO_SANDBOX, ("bash",), NO_SANDBOX),
        ("", ("wc", "sed"), "Tool 'sed' is not available"),
    ],
)
async def test_the_gate_names_the_first_missing_thing(
    control: Control, problem: str, missing: tuple[str, ...], reason: str
) -> None:
    """Bubblewrap before tools, tools in the order of the contract."""
    control.machine.problem = problem
    for name in missing:
        del control.machine.programs[name]

    environment = await control.environment()

    assert environment["gate"] == {"passed": False, "blocked_reason": reason}
    assert environment["tier1_met"] is not bool(missing)
    assert environment["bwrap_available"] is not bool(problem)
    assert environment["sandbox_mode"] == ("none" if problem else "bwrap")
    for name in missing:
        assert environment["capabilities"]["shell_tools"][name]["available"] is False


async def test_missing_comforts_are_warnings(control: Control) -> None:
    """Tools of tier 2 and runtimes block nothing."""
    for name in ("jq", "find", "node"):
        del control.machine.programs[name]

    environment = await control.environment()

    assert environment["gate"]["passed"] is True
    assert environment["tier2_warnings"] == [
        "Tool 'find' is not available",
        "Tool 'jq' is not available",
    ]
    node = environment["capabilities"]["runtimes"]["node"]
    assert node == {"available": False, "version": None, "path": None}


async def test_the_network_is_that_of_the_default_workspace(control: Control) -> None:
    """Nothing is sent to find out, and a change shows at once."""
    await control.store.write(
        lambda conn: insert_workspace(conn, owner_id=1, name="default", path="/x", created_at=START)
    )
    before = await control.environment()
    opened = update(schema.workspaces).values(allow_network=True)
    await control.store.write(lambda conn: conn.execute(opened).rowcount)

    after = await control.environment()

    assert before["capabilities"]["network"] == {"dns": False, "http": False}
    assert after["capabilities"]["network"] == {"dns": True, "http": True}


async def test_the_machine_is_probed_once(control: Control) -> None:
    """However many ask at once; a recheck looks again."""
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(control.get, "/settings/")
    assert control.machine.looks == 1
    control.machine.problem = NO_SANDBOX

    assert (await control.environment())["bwrap_available"] is True
    rechecked = await control.call("POST", RECHECK, key="ada-key")

    assert rechecked.status_code == 200
    assert set(rechecked.json()) == {"environment"}
    assert rechecked.json()["environment"] == await control.environment()
    assert rechecked.json()["environment"]["bwrap_available"] is False
    assert control.machine.looks == 2


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

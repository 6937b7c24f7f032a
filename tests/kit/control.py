"""A server that offers settings, on a machine of our making. Import the fixture by name."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from pipelit.services.environment import RUNTIMES, TIER_1, TIER_2, Findings
from pipelit.services.settings_service import LiveSettings, SettingsService
from pipelit.settings import Settings
from pipelit.store import Store
from pipelit.web.call import Services
from pipelit.web.routes import settings as routes
from tests.kit.canvas import insert_people
from tests.kit.served import Served
from tests.kit.web_server import serving
from tests.kit.witness import witness_of

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


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What the server was started with."""
    return Settings(
        data_dir=tmp_path,
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
    async with serving(
        routes.ROUTES, services=Services(service), witness=witness_of(*routes.ROUTES)
    ) as running:
        yield Control(
            client=running.client,
            data=settings.data_dir,
            store=store,
            live=live,
            levels=levels,
            machine=machine,
        )

"""Actors crash under a running server: each crash is seen everywhere, and disturbs nobody else.

Contract: operations.md §1–§4.
"""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from pipelit.actors.runtime import System
from pipelit.actors.runtime.testing import PlantedFaults
from pipelit.assembly.base import World
from pipelit.clock import Clock, Ids
from pipelit.settings import load_settings
from pipelit.tree import run_server
from pipelit.web.server import Address
from tests.kit.api import Api, calling, node_events
from tests.kit.model_server import ModelServer, model_server
from tests.kit.site import build_echo, build_thinker

pytestmark = pytest.mark.slow


class Boom(Exception):
    """What a test throws at an actor."""


class Running:
    """A whole server in this process, its administrator, and what may crash in it."""

    def __init__(
        self, system: System, url: str, api: Api, faults: PlantedFaults, provider: ModelServer
    ) -> None:
        self.system, self.url, self.api = system, url, api
        self.faults, self.provider = faults, provider

    async def crashes(self) -> list[Any]:
        page = await self.api.get("/system/supervision/?event=actor_crashed&limit=1000")
        return list(page["items"])

    async def records(self, path: str) -> list[str]:
        page = await self.api.get(f"/system/supervision/?actor={path}&limit=1000")
        return [record["event"] for record in page["items"]]

    async def wait_record(self, path: str, event: str) -> None:
        with trio.fail_after(30):
            async with self.system.subscribe(after=0) as records:
                async for record in records:
                    if (record.actor, record.event) == (path, event):
                        return

    async def metrics(self) -> str:
        return (await self.api.http.get("/metrics")).text

    async def pipelit(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PIPELIT_")}
        environ |= {"PIPELIT_URL": self.url, "PIPELIT_API_KEY": self.api.key, "COLUMNS": "80"}
        return await trio.run_process(
            [sys.executable, "-m", "pipelit", *args],
            env=environ | {"LINES": "24"},
            capture_stdout=True,
            capture_stderr=True,
        )


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Running]:
    addresses: list[Address] = []
    faults = PlantedFaults()
    world = World(
        clock=Clock(),
        ids=Ids(),
        say=lambda _: None,
        on_listening=addresses.append,
        faults=faults,
    )
    settings = load_settings({"data_dir": str(directory), "port": "0"}, {})
    async with run_server(settings, world) as system, model_server() as provider:
        url = addresses[0].url
        async with calling(url) as api:
            yield Running(system, url, await api.setup(), faults, provider)


async def test_each_crash_is_seen_everywhere_and_disturbs_nobody_else(tmp_path: Path) -> None:
    """Of an execution, a schedule and the hub: tree, records, metrics and screen agree."""
    async with running(tmp_path) as server:
        api, faults = server.api, server.faults
        await build_thinker(api, "victim", server.provider)
        await build_thinker(api, "bystander", server.provider)
        await build_echo(api, "echo")
        job = await api.post(
            "/schedules/",
            {"name": "job", "workflow_id": await _id_of(api, "echo"), "interval_seconds": 3600},
        )
        bystander = await api.run("bystander")
        others_call = await server.provider.next_call()
        victim = await api.run("victim")
        call = await server.provider.next_call()

        faults.crash_next(f"/executions/{victim}", Boom("execution"))
        await call.say("Lost with the turn.")
        await (await server.provider.next_call()).say("Said again.")
        assert (await api.wait_end(victim))["status"] == "completed"

        faults.crash_next(f"/schedules/{job['id']}", Boom("schedule"))
        await api.call("PATCH", f"/schedules/{job['id']}/", {"name": "renamed"})
        await server.wait_record(f"/schedules/{job['id']}", "actor_restarted")

        faults.crash_next("/hub", Boom("hub"))
        await api.run("echo")
        await server.wait_record("/hub", "actor_restarted")

        await _check_records(server, victim, job["id"])
        await _check_tree(server, job["id"])
        await _check_metrics(server)
        await _check_screen(server)

        await others_call.say("Undisturbed.")
        ended = await api.wait_end(bystander)
        assert ended["status"] == "completed"
        assert node_events(await api.events(bystander), "thinker") == [
            "pending",
            "running",
            "success",
        ]
        assert (await api.get("/system/info/"))["stuck_executions"] == 0


async def _id_of(api: Api, slug: str) -> int:
    return int((await api.get(f"/workflows/{slug}/"))["id"])


async def _check_records(server: Running, victim: str, job_id: str) -> None:
    crashes = {record["kind"]: record for record in await server.crashes()}

    assert {kind: record["error"]["message"] for kind, record in crashes.items()} == {
        "execution": "execution",
        "schedule": "schedule",
        "hub": "hub",
    }
    assert {kind: record["detail"]["next"] for kind, record in crashes.items()} == {
        "execution": "stop",
        "schedule": "restart",
        "hub": "restart",
    }
    assert all("Boom" in record["error"]["traceback"] for record in crashes.values())
    assert crashes["execution"]["detail"]["execution_id"] == victim
    assert crashes["schedule"]["detail"]["schedule_id"] == job_id
    life = await server.records(f"/executions/{victim}")
    assert life[:3] == ["actor_started", "actor_crashed", "actor_started"]
    taken_up = await server.api.get("/system/supervision/?event=recovered")
    assert [one["detail"]["execution_id"] for one in taken_up["items"]] == [victim]


async def _check_tree(server: Running, job_id: str) -> None:
    hub = await server.api.get("/system/actors/hub")
    schedule = await server.api.get(f"/system/actors/schedules/{job_id}")

    for actor, message in ((hub, "hub"), (schedule, "schedule")):
        assert (actor["state"], actor["restarts"], actor["incarnation"]) == ("running", 1, 2)
        assert actor["last_error"]["message"] == message


async def _check_metrics(server: Running) -> None:
    text = await server.metrics()
    counted = re.findall(
        r'^pipelit_actor_(crashes|restarts)_total\{kind="(\w+)"\} (\S+)', text, re.M
    )

    assert sorted(counted) == [
        ("crashes", "execution", "1.0"),
        ("crashes", "hub", "1.0"),
        ("crashes", "schedule", "1.0"),
        ("restarts", "hub", "1.0"),
        ("restarts", "schedule", "1.0"),
    ]


async def _check_screen(server: Running) -> None:
    shown = msgspec.json.decode((await server.pipelit("top", "--json")).stdout)
    screen = (await server.pipelit("top", "--once")).stdout.decode()
    logged = (await server.pipelit("logs", "--event", "actor_crashed")).stdout.decode()

    assert shown["restarts"] == 2
    assert [actor["restarts"] for actor in shown["actors"][:3]] == [1, 1, 0]
    assert "restarts 2" in screen
    assert len(screen.splitlines()) == 24
    assert max(map(len, screen.splitlines())) <= 80
    causes = [line.split(None, 3)[3] for line in logged.splitlines()]
    assert [cause.partition("  ")[0] for cause in causes] == [
        "Boom: execution",
        "Boom: schedule",
        "Boom: hub",
    ]


async def test_code_that_holds_the_loop_is_named(tmp_path: Path) -> None:
    """As a record of whoever held it, in the histogram of lags, and as a count."""
    async with running(tmp_path) as server:

        class Slow(PlantedFaults):
            def before_turn(self, path: str) -> None:
                if path == "/hub" and not held:
                    held.append(path)
                    deadline = Clock().now().timestamp() + 0.15
                    while Clock().now().timestamp() < deadline:
                        pass

        held: list[str] = []
        server.faults.before_turn = Slow().before_turn  # type: ignore[method-assign]
        await build_echo(server.api, "echo")
        await server.api.wait_end(await server.api.run("echo"))
        await server.wait_record("/hub", "slow_handler")
        text = await server.metrics()

    assert re.search(r'supervision_events_total\{event="slow_handler"\} [1-9]', text)
    beyond, total = (
        float(re.search(rf"event_loop_lag_seconds_{name} (\S+)", text)[1])  # type: ignore[index]
        for name in (r'bucket\{le="0.1"\}', "count")
    )
    assert beyond < total

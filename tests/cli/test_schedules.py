"""`pipelit schedules` against scripted answers. Contract: operations.md §4."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.fake_server import serving
from tests.cli.test_commands import pipelit

pytestmark = pytest.mark.slow

JOB: dict[str, Any] = {
    "id": "c0a1f6de", "name": "Digest", "status": "active", "interval_seconds": None,
    "cron": "30 2 * * *", "timezone": "Europe/Berlin", "catch_up": "one", "run_count": 3,
    "error_count": 1, "last_error": "", "last_run_at": None,
    "next_run_at": "2026-03-29T01:00:00",
}  # fmt: skip
TIMES = {
    "items": [{"nominal_time": "2026-03-29T01:00:00", "local_time": "2026-03-29T03:00:00+02:00"}],
    "total": 1,
}


async def test_jobs_are_listed_and_previewed(tmp_path: Path) -> None:
    """Plain rows in a pipe; local times carry their offset."""
    other = {**JOB, "id": "7", "name": "Tick", "interval_seconds": 60, "cron": None}
    async with serving() as server:
        server.answer("GET", "/schedules/", 200, {"items": [JOB, other], "total": 3})
        server.answer("GET", "/schedules/c0a1f6de/preview/", 200, TIMES)
        server.answer("GET", "/schedules/c0a1f6de/", 200, JOB)
        listed = await pipelit(server, tmp_path, "schedules", "list", "--status", "active")
        times = await pipelit(server, tmp_path, "schedules", "preview", "c0a1f6de")
        shown = await pipelit(server, tmp_path, "schedules", "show", "c0a1f6de")

    _, first, second = listed.stdout.decode().splitlines()
    assert first.split() == [
        *("c0a1f6de", "Digest", "active", "3", "1"),
        *("30", "2", "*", "*", "*", "(Europe/Berlin)", "2026-03-29T01:00:00"),
    ]
    assert "every 60 s" in second
    assert listed.stderr.decode() == "2 of 3; more with --limit.\n"
    assert times.stdout.decode().splitlines()[1].split() == [
        "2026-03-29T01:00:00",
        "2026-03-29T03:00:00+02:00",
    ]
    assert "30 2 * * * (Europe/Berlin)" in shown.stdout.decode()


async def test_jobs_are_paused_and_resumed(tmp_path: Path) -> None:
    """A refusal is on stderr, exit code 1."""
    refusal = {"detail": "Cannot resume job with status 'active'."}
    async with serving() as server:
        server.answer("POST", "/schedules/c0a1f6de/pause/", 200, {**JOB, "status": "paused"})
        server.answer("POST", "/schedules/c0a1f6de/resume/", 400, refusal)
        paused = await pipelit(server, tmp_path, "schedules", "pause", "c0a1f6de")
        refused = await pipelit(server, tmp_path, "schedules", "resume", "c0a1f6de")

    assert (paused.returncode, paused.stdout) == (0, b"Digest is paused.\n")
    assert refused.returncode == 1
    assert refusal["detail"] in refused.stderr.decode()


async def test_the_schedule_trigger_of_a_workflow_is_started(tmp_path: Path) -> None:
    """The first one unless named; the job's id is what a script reads."""
    nodes = [
        {"node_id": "in", "component_type": "trigger_chat"},
        {"node_id": "tick", "component_type": "trigger_schedule"},
    ]
    async with serving() as server:
        server.answer("GET", "/workflows/w/nodes/", 200, nodes)
        server.answer("GET", "/workflows/none/nodes/", 200, nodes[:1])
        path = "/workflows/w/nodes/tick/schedule/start"
        server.answer("POST", path, 200, {"schedule_job": JOB})
        started = await pipelit(server, tmp_path, "schedules", "start", "w")
        refused = await pipelit(server, tmp_path, "schedules", "start", "none")

    assert (started.returncode, started.stdout) == (0, b"c0a1f6de\n"), started.stderr
    assert b"30 2 * * * (Europe/Berlin); next: 2026-03-29T01:00:00 UTC." in started.stderr
    assert refused.returncode == 1
    assert b"Workflow 'none' has no schedule trigger." in refused.stderr

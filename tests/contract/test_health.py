"""The probes of the whole server. Contract: health.md, operations.md §3."""

import sqlite3
from contextlib import closing

import httpx2
import pytest

from pipelit import __version__
from tests.kit.site import People, Site

pytestmark = pytest.mark.slow


async def test_health_has_exactly_four_fields(people: People) -> None:
    """Without a key; no broker is configured, which is normal."""
    answer = await people.anyone.http.get("/health")

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "version": __version__,
        "redis": None,
        "database": True,
    }


@pytest.mark.parametrize("path", ["/health", "/health/", "/ready", "/ready/"])
async def test_probes_answer_head_in_both_forms(people: People, path: str) -> None:
    """For probes that want no body."""
    answer = await people.anyone.http.head(path)

    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_ready_server_says_so(people: People) -> None:
    """And nothing else."""
    answer = await people.anyone.http.get("/ready")

    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_health_answers_while_a_writer_locks_the_database(people: People, site: Site) -> None:
    """Reading needs no lock."""
    with closing(sqlite3.connect(site.server.data / "db.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        answer: httpx2.Response = await people.anyone.http.get("/health")
        other.rollback()

    assert answer.json()["database"] is True

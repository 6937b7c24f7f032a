"""The memory and the health report on PostgreSQL, whose SQL is not SQLite's."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL, insert

from pipelit.clock import Ids
from pipelit.nodes.identify_user import Encounter
from pipelit.services.agent_memory import StoredMemory
from pipelit.services.system_health import SystemHealth
from pipelit.store import Store
from pipelit.store.database import Purpose, open_engine
from pipelit.store.migrate import Migrations
from pipelit.store.queries.servers import register_server
from pipelit.store.schema import users, workflows
from tests.kit.postgres import postgres_database, postgres_url
from tests.kit.store import running_store
from tests.services.conftest import HandClock

__all__ = ["postgres_database", "postgres_url"]

pytestmark = pytest.mark.slow


@pytest.fixture
async def store(postgres_url: URL) -> AsyncIterator[Store]:
    engine = open_engine(postgres_url, Purpose.MIGRATE)
    Migrations().upgrade(engine)
    engine.dispose()
    async with running_store(postgres_url) as running:
        yield running


async def test_the_memory_works_there_too(store: Store, clock: HandClock) -> None:
    """Facts are written, confirmed, found in any case; people are met."""
    memory = StoredMemory(store, clock, Ids.seeded(1))
    for value in ("BERN 100%", "Bern 100%"):
        await memory.set_fact("home_Town", value, "correction", overwrite=True)

    found = await memory.search_facts("HOME-town", limit=5, min_confidence=0.5)
    by_value = await memory.search_facts("bern 100%", limit=5, min_confidence=0.5)
    nothing = await memory.search_facts("!", limit=5, min_confidence=0.5)
    procedures = await memory.search_procedures("x", workflow_id=1, limit=5)
    episodes = await memory.search_episodes("x", workflow_id=1, limit=5)
    met = await memory.meet(Encounter(canonical_id="chat:3", display_name="ada", workflow_id=1))

    assert [fact.value for fact in found] == ["Bern 100%"]
    assert by_value == found
    assert (nothing, procedures, episodes) == ([], [], [])
    assert (met.is_new, met.total_conversations) == (True, 1)


async def test_the_health_report_works_there_too(store: Store, clock: HandClock) -> None:
    """Every check gives a result."""
    now = clock.now()

    def fill(conn):
        conn.execute(insert(users).values(id=1, username="bob", created_at=now))
        conn.execute(
            insert(workflows).values(
                id=1, name="w", slug="w", owner_id=1, created_at=now, updated_at=now
            )
        )
        register_server(conn, "node-1")

    await store.write(fill)

    report = await SystemHealth(store, clock).report(1)

    assert report["summary"] == "healthy"
    assert {check["status"] for check in report["checks"].values()} == {"ok"}
    assert report["checks"]["store"]["size_bytes"] > 0

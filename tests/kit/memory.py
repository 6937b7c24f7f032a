"""A server that offers memory, filled as runs would fill it. Import the fixture by name."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from pipelit.services.memory import MemoryService
from pipelit.store import Store, schema
from pipelit.store.queries import threads
from pipelit.web.call import Services
from pipelit.web.routes import memory as routes
from tests.kit.served import Served
from tests.kit.web_server import serving
from tests.kit.witness import witness_of

START = datetime(2026, 1, 20, 7, tzinfo=UTC)
TABLES = {
    "facts": schema.facts,
    "episodes": schema.episodes,
    "procedures": schema.procedures,
    "users": schema.memory_users,
}
REQUIRED: dict[str, dict[str, Any]] = {
    "facts": {"scope": "user", "key": "k", "fact_type": "correction", "updated_at": START},
    "episodes": {"agent_id": "workflow:12", "started_at": START},
    "procedures": {"agent_id": "workflow:12", "name": "N", "procedure_type": "tool_chain"},
    "users": {"first_seen_at": START, "last_seen_at": START},
}


class Memory(Served, frozen=True, kw_only=True):
    """The server under test and what runs would have written."""

    store: Store

    async def add(self, kind: str, number: int = 1, **values: object) -> str:
        """Store a row as a run would; return its id."""
        row = {"id": f"00000000-0000-4000-8000-{number:012}", "created_at": START}
        row |= {"canonical_id": f"gw:{number}"} if kind == "users" else {}
        row |= REQUIRED[kind] | values
        await self.store.write(
            lambda conn: conn.execute(insert(TABLES[kind]).values(**row)).rowcount
        )
        return str(row["id"])

    async def ids(self, path: str) -> list[int]:
        """Return the numbers of what a list shows, in its order."""
        return [int(item["id"][-12:]) for item in (await self.get(path))["items"]]

    async def append(self, number: int, *texts: str, thread: str = "3:12", ns: str = "") -> str:
        """Add messages to a thread as version *number*; return the version's id."""
        change = threads.ThreadAppend(
            thread_id=thread,
            namespace=ns,
            source="input",
            checkpoint_id=f"01900000-0000-7000-8000-{number:012}",
            execution_id=None,
            now=START + timedelta(seconds=number),
            messages=tuple(("user", {"content": text}) for text in texts),
        )
        await self.store.write(lambda conn: threads.append(conn, change))
        return change.checkpoint_id

    async def history(self, thread: str = "3:12", ns: str = "") -> list[str]:
        """Return the texts that a conversation consists of now."""

        def query(conn: Connection) -> list[str]:
            found, _ = threads.history(conn, thread, ns, limit=100)
            return [message.message["content"] for message in found]

        return await self.store.read(query)


@pytest.fixture
async def memory(store: Store) -> AsyncIterator[Memory]:
    """A running server on a fresh store."""
    services = Services(MemoryService(store))
    async with serving(
        routes.ROUTES, services=services, witness=witness_of(*routes.ROUTES)
    ) as running:
        yield Memory(client=running.client, store=store)

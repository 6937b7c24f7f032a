"""The shared memory as nodes use it: no rights are asked, every run may read and write it.

Contract: engine.md §30.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pipelit.clock import Clock, Ids
from pipelit.nodes.identify_user import Encounter, Known, Met
from pipelit.nodes.memory import Fact, MemoryFailed, Procedure, Written
from pipelit.store import Store
from pipelit.store.errors import StoreError
from pipelit.store.queries import facts as queries

MAX_FACTS = 20
MAX_HISTORY = 5

T = TypeVar("T")


class StoredMemory:
    """Implements `pipelit.nodes.memory.Memory` and `pipelit.nodes.identify_user.Acquaintances`."""

    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def find_fact(self, key: str) -> Fact | None:
        """Return the global fact with exactly this key."""
        now = self._clock.now()
        row = await self._write(lambda conn: queries.find_fact(conn, key, now=now))
        return None if row is None else _fact(row)

    async def newest_facts(self, *, limit: int, min_confidence: float) -> Sequence[Fact]:
        """Return global facts, the last changed first."""
        query = partial(
            queries.newest_facts,
            limit=limit,
            min_confidence=min_confidence,
            now=self._clock.now(),
        )
        return [_fact(row) for row in await self._write(query)]

    async def search_facts(
        self, query: str, *, limit: int, min_confidence: float
    ) -> Sequence[Fact]:
        """Return the global facts whose key or value holds *query*, the surest first."""
        unit = partial(
            queries.search_facts,
            query=query,
            limit=limit,
            min_confidence=min_confidence,
            now=self._clock.now(),
        )
        return [_fact(row) for row in await self._write(unit)]

    async def search_procedures(
        self, query: str, *, workflow_id: int, limit: int
    ) -> Sequence[Procedure]:
        """Return active procedures of a workflow, and global ones, that speak of *query*."""
        agent_id = agent_id_of(workflow_id)
        find = partial(queries.search_procedures, query=query, agent_id=agent_id, limit=limit)
        return [Procedure(row.name, row.description) for row in await self._read(find)]

    async def search_episodes(self, query: str, *, workflow_id: int, limit: int) -> Sequence[str]:
        """Return summaries, of a workflow and global, that hold *query*, newest first."""
        agent_id = agent_id_of(workflow_id)
        return await self._read(
            partial(queries.search_episodes, query=query, agent_id=agent_id, limit=limit)
        )

    async def set_fact(self, key: str, value: Any, fact_type: str, *, overwrite: bool) -> Written:
        """Store a global fact."""
        fact = queries.NewFact(id=self._ids.uuid(), key=key, value=value, fact_type=fact_type)
        now = self._clock.now()
        return await self._write(
            lambda conn: queries.set_fact(conn, fact, overwrite=overwrite, now=now)
        )

    async def meet(self, encounter: Encounter) -> Met:
        """Find or make the memory user of somebody, and count the conversation."""
        visitor = queries.Visitor(
            id=self._ids.uuid(),
            canonical_id=encounter.canonical_id,
            display_name=encounter.display_name,
        )
        unit = partial(
            queries.meet,
            visitor=visitor,
            agent_id=agent_id_of(encounter.workflow_id),
            now=self._clock.now(),
            max_facts=MAX_FACTS,
            max_history=MAX_HISTORY,
        )
        found = await self._write(unit)
        return Met(
            user_id=found.id,
            is_new=found.is_new,
            display_name=found.display_name,
            preferences=found.preferences or {},
            total_conversations=found.total_conversations,
            first_seen=found.first_seen_at,
            facts=tuple(_fact(row) for row in found.facts),
            history=tuple(Known(e.summary, e.success, e.started_at) for e in found.history),
        )

    async def _write(self, unit: Callable[[Connection], T]) -> T:
        try:
            return await self._store.write(unit)
        except (StoreError, DBAPIError) as error:
            raise MemoryFailed(_detail(error)) from error

    async def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            return await self._store.read(query)
        except (StoreError, DBAPIError) as error:
            raise MemoryFailed(_detail(error)) from error


def agent_id_of(workflow_id: int) -> str:
    """Return the `agent_id` of what a workflow remembers (memory.md "Episode")."""
    return f"workflow:{workflow_id}"


def _fact(row: queries.KnownFact) -> Fact:
    return Fact(key=row.key, value=row.value, confidence=row.confidence, fact_type=row.fact_type)


def _detail(error: StoreError | DBAPIError) -> str:
    # The database's own words may name the file or the host it is on; a model reads this.
    return str(error) if isinstance(error, StoreError) else type(error).__name__

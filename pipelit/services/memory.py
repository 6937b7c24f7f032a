"""What agents remember: everybody may look at it and delete it. Contract: memory.md.

Runs write it; nothing here does.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from pipelit.store import Store
from pipelit.store.queries import memory as queries
from pipelit.store.queries.memory import (
    CheckpointRow,
    EpisodeRow,
    FactRow,
    MemoryUserRow,
    ProcedureRow,
)

UNUSED_RATE = 0.5
"""Success rate of a procedure that was never used."""

_View = TypeVar("_View", bound=msgspec.Struct)


class Fact(FactRow, frozen=True, kw_only=True):
    """A fact as everybody sees it."""


class Episode(EpisodeRow, frozen=True, kw_only=True):
    """An episode as everybody sees it."""


class Procedure(ProcedureRow, frozen=True, kw_only=True):
    """A procedure as everybody sees it."""

    success_rate: float
    """0 to 1, three decimals; `UNUSED_RATE` when it was never used."""


class MemoryUser(MemoryUserRow, frozen=True, kw_only=True):
    """A memory user as everybody sees it."""


class Checkpoint(CheckpointRow, frozen=True, kw_only=True):
    """A stored version of one namespace of a thread, as everybody sees it."""


class MemoryService:
    """What the contract's memory section lets people do."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def browse_facts(
        self, *, scope: str | None, fact_type: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Fact], int]:
        """Return a page of the facts that match, last changed first, and how many there are."""
        query = partial(
            queries.list_facts, scope=scope, fact_type=fact_type, limit=limit, offset=offset
        )
        rows, total = await self._store.read(query)
        return [_show(Fact, row) for row in rows], total

    async def browse_episodes(
        self, *, agent_id: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Episode], int]:
        """Return a page of the episodes that match, last started first, and how many there are."""
        query = partial(queries.list_episodes, agent_id=agent_id, limit=limit, offset=offset)
        rows, total = await self._store.read(query)
        return [_show(Episode, row) for row in rows], total

    async def browse_procedures(
        self, *, agent_id: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Procedure], int]:
        """Return a page of the procedures that match, newest first, and how many there are."""
        query = partial(queries.list_procedures, agent_id=agent_id, limit=limit, offset=offset)
        rows, total = await self._store.read(query)
        return [_show_procedure(row) for row in rows], total

    async def browse_users(self, *, limit: int, offset: int) -> tuple[Sequence[MemoryUser], int]:
        """Return a page of the memory users, last seen first, and how many there are."""
        rows, total = await self._store.read(
            partial(queries.list_users, limit=limit, offset=offset)
        )
        return [_show(MemoryUser, row) for row in rows], total

    async def browse_checkpoints(
        self, *, thread_id: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Checkpoint], int]:
        """Return a page of the checkpoints that match, newest first, and how many there are."""
        query = partial(queries.list_checkpoints, thread_id=thread_id, limit=limit, offset=offset)
        rows, total = await self._store.read(query)
        return [_show(Checkpoint, row) for row in rows], total

    async def delete_facts(self, ids: Collection[str]) -> None:
        """Delete those of *ids* that exist."""
        await self._store.write(partial(queries.delete_facts, ids=ids))

    async def delete_episodes(self, ids: Collection[str]) -> None:
        """Delete those of *ids* that exist, also of running executions: none comes back."""
        await self._store.write(partial(queries.delete_episodes, ids=ids))

    async def delete_procedures(self, ids: Collection[str]) -> None:
        """Delete those of *ids* that exist."""
        await self._store.write(partial(queries.delete_procedures, ids=ids))

    async def delete_users(self, ids: Collection[str]) -> None:
        """Delete those of *ids* that exist; facts and episodes that name them stay."""
        await self._store.write(partial(queries.delete_users, ids=ids))

    async def delete_checkpoints(
        self, *, thread_ids: Collection[str], checkpoint_ids: Collection[str]
    ) -> None:
        """Delete these versions and all versions of these threads.

        A conversation falls back to its newest version that is left, or is forgotten.
        """
        delete = partial(
            queries.delete_checkpoints, thread_ids=thread_ids, checkpoint_ids=checkpoint_ids
        )
        await self._store.write(delete)


def _show(kind: type[_View], row: msgspec.Struct) -> _View:
    return kind(**msgspec.structs.asdict(row))


def _show_procedure(row: ProcedureRow) -> Procedure:
    rate = round(row.times_succeeded / row.times_used, 3) if row.times_used else UNUSED_RATE
    return Procedure(success_rate=rate, **msgspec.structs.asdict(row))

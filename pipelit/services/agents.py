"""Agent users: everybody sees them, their creators and admins delete them. Contract: users.md."""

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial

import msgspec
from sqlalchemy import Connection

from pipelit.errors import Forbidden, NotFound
from pipelit.services import visibility
from pipelit.services.api_keys import KeyEvents
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries import agents as queries
from pipelit.store.queries.agents import AgentRow

NOT_FOUND = "Agent user not found"
NOT_YOURS = "Only the creator or an admin can delete this agent user."


class AgentUser(msgspec.Struct, frozen=True, kw_only=True):
    """An account without a password, made by a running workflow."""

    id: int
    username: str
    purpose: str
    api_key_preview: str
    """`...` and the end of its newest active key; empty if it has none."""
    created_at: datetime
    created_by: str | None


class AgentsService:
    """Shows and deletes agent users. Nothing here makes one: that is a node's work."""

    def __init__(self, store: Store, events: KeyEvents) -> None:
        self._store = store
        self._events = events

    async def browse(self, *, limit: int, offset: int) -> tuple[Sequence[AgentUser], int]:
        """Return a page of all agent users, newest first, and how many there are."""
        rows, total = await self._store.read(
            partial(queries.list_agents, limit=limit, offset=offset)
        )
        return [_show(row) for row in rows], total

    async def delete(self, principal: Principal, user_id: int) -> None:
        """Delete an agent user and its keys; what it owned passes to its creator.

        Raises:
            NotFound: no user of this id is an agent user.
            Forbidden: *principal* is neither its creator nor an admin.
        """

        def delete(conn: Connection) -> list[int]:
            found = queries.find_agents(conn, [user_id])
            if not found:
                raise NotFound(NOT_FOUND)
            if not _may_delete(principal, found[0]):
                raise Forbidden(NOT_YOURS)
            return queries.delete_agents(conn, found, heir_id=principal.user_id)

        self._events.revoke(await self._store.write(delete))

    async def delete_many(self, principal: Principal, ids: Collection[int]) -> None:
        """Delete those of *ids* that are agent users and that *principal* may delete."""

        def delete(conn: Connection) -> list[int]:
            found = queries.find_agents(conn, ids)
            doomed = [agent for agent in found if _may_delete(principal, agent)]
            return queries.delete_agents(conn, doomed, heir_id=principal.user_id)

        if ids:
            self._events.revoke(await self._store.write(delete))


def _may_delete(principal: Principal, agent: AgentRow) -> bool:
    return principal.is_admin or visibility.owns(principal, agent.created_by_id)


def _show(row: AgentRow) -> AgentUser:
    return AgentUser(
        id=row.id,
        username=row.username,
        purpose=row.purpose,
        api_key_preview="" if row.key_suffix is None else f"...{row.key_suffix}",
        created_at=row.created_at,
        created_by=row.created_by,
    )

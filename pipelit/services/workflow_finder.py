"""Looks for workflows that fit a need, for agents. Contract: engine.md §28."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from pipelit.engine.discovery import Candidate, Requirements, rank
from pipelit.nodes.json_tools import Acting
from pipelit.services.tool_owner import get_acting
from pipelit.services.visibility import identities
from pipelit.store import Store
from pipelit.store.queries import discovery as queries

MAX_CANDIDATES = 1000
"""The newest workflows are looked at, if there are more."""


class WorkflowCatalogue:
    """Implements `pipelit.nodes.workflow_tools.WorkflowFinder`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def discover(
        self, acting: Acting, requirements: Requirements, limit: int
    ) -> Mapping[str, Any]:
        """Return the best matches, and how many workflows were looked at.

        Raises:
            NotFound: the caller's workflow is gone.
        """

        # Reading and ranking a thousand workflows takes a while: in the reader's thread.
        def search(conn: Connection) -> Mapping[str, Any]:
            owners = identities(get_acting(conn, acting))
            found = queries.list_callable(
                conn, owners, but=acting.workflow_id, limit=MAX_CANDIDATES
            )
            candidates = [Candidate(**row) for row in found]
            return {
                "matches": rank(requirements, candidates, limit),
                "total_searched": len(candidates),
            }

        return await self._store.read(search)

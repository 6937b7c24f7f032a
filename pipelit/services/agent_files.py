"""Files of deep agents that outlive executions, in the database. Contract: node-types.md §5.2."""

from collections.abc import Sequence

from sqlalchemy import Connection

from pipelit.clock import Clock
from pipelit.nodes.base import ToolError
from pipelit.nodes.kept_files import MAX_FILES, MAX_PATH_CHARS, check_room
from pipelit.store import Store
from pipelit.store.queries import agent_files as queries


class StoredFiles:
    """Implements `pipelit.nodes.agent_files.Files` for one workflow and user."""

    def __init__(self, store: Store, clock: Clock, *, workflow_id: int, user_key: str) -> None:
        self._store = store
        self._clock = clock
        self._shelf = queries.Shelf(workflow_id, user_key)

    async def paths(self) -> Sequence[str]:
        """Return the paths of all files, in order."""
        return await self._store.read(
            lambda conn: queries.list_paths(conn, self._shelf, limit=MAX_FILES)
        )

    async def read(self, path: str) -> str | None:
        """Return the text of a file; None: there is none."""
        if len(path) > MAX_PATH_CHARS:
            return None
        return await self._store.read(lambda conn: queries.read(conn, self._shelf, path))

    async def write(self, path: str, text: str) -> None:
        """Make a file, or replace its text."""
        now = self._clock.now()

        def unit(conn: Connection) -> str | None:
            count, size = queries.room_beside(conn, self._shelf, path)
            problem = check_room(path, text, count=count, size=size)
            if problem is None:
                queries.write(conn, self._shelf, path, text, now=now)
            return problem

        problem = await self._store.write(unit)
        if problem is not None:
            raise ToolError(problem)

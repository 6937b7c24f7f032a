"""What the server knows about itself. For administrators; contract: operations.md §2.

Actors and records are this server's; executions and servers are read from the database.
"""

import platform
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit import __version__
from pipelit.actors.runtime import ActorInfo, Record, System
from pipelit.actors.stuck import StuckFinder
from pipelit.clock import Clock
from pipelit.errors import NotFound
from pipelit.services.supervision import show_record
from pipelit.store import Store
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.servers import ServerRow, list_servers
from pipelit.store.queries.stuck import count_by_status

STATUSES = ("pending", "running", "interrupted", "completed", "failed", "cancelled")


class ServerView(msgspec.Struct, frozen=True, kw_only=True):
    """A server of this database."""

    node_id: str
    epoch: int
    lease_until: datetime
    live: bool


class DatabaseView(msgspec.Struct, frozen=True):
    """Which database; never where, nor as whom."""

    dialect: str
    version: str


class StoreView(msgspec.Struct, frozen=True, kw_only=True):
    """How writing goes."""

    queue_depth: int
    commits: int
    batch_p50: int
    commit_ms_p99: float


class SystemInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The server in numbers."""

    version: str
    node_id: str
    epoch: int
    started_at: datetime
    uptime_s: float
    python: str
    database: DatabaseView
    servers: Sequence[ServerView]
    actors: dict[str, int]
    executions: dict[str, int]
    store: StoreView
    loop_lag_ms_p99: float
    stuck_executions: int


class SystemService:
    """Answers for one server."""

    def __init__(
        self, system: System, store: Store, owner: Owner, clock: Clock, *, stuck: StuckFinder
    ) -> None:
        self._system = system
        self._store = store
        self._owner = owner
        self._clock = clock
        self._stuck = stuck
        self._started_at = clock.now()

    @property
    def uptime(self) -> float:
        """Seconds since the tree came up."""
        return (self._clock.now() - self._started_at).total_seconds()

    def list_actors(
        self, *, kind: str | None, limit: int, offset: int
    ) -> tuple[Sequence[ActorInfo], int]:
        """Return a page of the tree in depth-first order, and how many match."""
        return self._system.list_actors(kind=kind, offset=offset, limit=limit)

    def show_actor(self, path: str) -> ActorInfo:
        """Return the actor at *path*, without its leading slash, and its children.

        Raises:
            NotFound: nobody lives there.
        """
        found = self._system.snapshot(f"/{path}", depth=1)
        if found is None:
            raise NotFound("Actor not found.")
        return found

    def list_records(
        self,
        since: int,
        *,
        event: str | None,
        kind: str | None,
        actor: str | None,
        limit: int,
    ) -> tuple[Sequence[dict[str, Any]], int]:
        """Return records after *since*, oldest first, and how many match."""
        found: tuple[Record, ...] = self._system.records(since, event=event, kind=kind, actor=actor)
        return [show_record(record) for record in found[:limit]], len(found)

    async def info(self) -> SystemInfo:
        """Return the server in numbers.

        Raises:
            StoreError: the database does not answer.
        """
        stuck = await self._stuck.look(self._system)
        database, servers, executions = await self._store.read(_look)
        writer = self._store.statistics()
        return SystemInfo(
            version=__version__,
            node_id=self._owner.node_id,
            epoch=self._owner.epoch,
            started_at=self._started_at,
            uptime_s=round(self.uptime, 3),
            python=platform.python_version(),
            database=database,
            servers=[_view(row) for row in servers],
            actors={kind: n.actors for kind, n in sorted(self._system.count_kinds().items())},
            executions=dict.fromkeys(STATUSES, 0) | executions,
            store=StoreView(
                queue_depth=writer.queue_depth,
                commits=writer.commits,
                batch_p50=writer.batch_p50,
                commit_ms_p99=round(writer.commit_ms_p99, 3),
            ),
            loop_lag_ms_p99=round(self._system.loop_lag() * 1000, 3),
            stuck_executions=stuck,
        )


def _look(conn: Connection) -> tuple[DatabaseView, Sequence[ServerRow], dict[str, int]]:
    version = ".".join(map(str, conn.dialect.server_version_info or ()))
    database = DatabaseView(conn.dialect.name, version)
    return database, list_servers(conn), count_by_status(conn)


def _view(row: ServerRow) -> ServerView:
    return ServerView(
        node_id=row.node_id, epoch=row.epoch, lease_until=row.lease_until, live=row.live
    )

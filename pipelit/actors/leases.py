"""Who may write for executions: this server, as long as its lease runs.

Started before the executions and stopped after them: when it stops, nothing of ours runs any more,
and what it owned is free for whoever starts next. Contract: engine.md §10.7.
"""

from datetime import timedelta

from sqlalchemy import Connection

from pipelit.actors.runtime import Actor, Directive, Message
from pipelit.errors import PipelitError
from pipelit.store import Store, StoreError
from pipelit.store.queries import journal, ownership
from pipelit.store.queries.servers import lateness, release_server, renew_lease

RENEW_EVERY = 5.0


class LeaseLost(PipelitError):
    """Another server may have taken over what this one owned: it must not go on."""


class Renew(Message, frozen=True):
    """Time to show life."""


class Lease(Actor[Renew]):
    """Owns this server's row in `servers`."""

    def __init__(self, store: Store, owner: journal.Owner, *, shared: bool) -> None:
        """`shared`: other servers may use the database. A file's lock says all there is to say."""
        self._store = store
        self._owner = owner
        self._shared = shared

    async def on_start(self) -> None:
        """Begin to renew."""
        if self._shared:
            self.ctx.after(RENEW_EVERY, Renew())

    async def receive(self, message: Renew) -> None:
        """Prolong the lease.

        Raises:
            LeaseLost: it had run out. The process ends and starts with a new epoch.
        """
        owner = self._owner
        try:
            late = await self._store.write(self._renew)
        except StoreError:
            late = None  # the next renewal tells whether the lease outlived the trouble
        if late is not None:
            self.ctx.emit("lease_lost", late_ms=round(late.total_seconds() * 1000))
            raise LeaseLost(f"epoch {owner.epoch} of {owner.node_id} has lost its lease")
        self.ctx.after(RENEW_EVERY, Renew())

    def _renew(self, conn: Connection) -> timedelta | None:
        """Return how much too late it was, if it was."""
        owner = self._owner
        if renew_lease(conn, owner.node_id, owner.epoch):
            return None
        return lateness(conn, owner.node_id, owner.epoch)

    async def on_drain(self) -> None:
        """Release everything: the rows keep their status and have no owner."""
        owner = self._owner

        def release(conn: Connection) -> None:
            ownership.release_all(conn, owner)
            release_server(conn, owner.node_id, owner.epoch)

        await self._store.write(release)
        self.ctx.stop()


def escalate_when_lost(error: Exception) -> Directive:
    """Decide about a crash: an epoch whose lease is lost never writes again."""
    return Directive.ESCALATE if isinstance(error, LeaseLost) else Directive.RESTART

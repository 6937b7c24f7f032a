"""The live side's view of the server: readers of the hub's board, and replay from the store."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from pipelit.actors.hub import Board, Copy, Subscription, stored_copy
from pipelit.services.authenticator import Authenticator
from pipelit.services.principal import Principal
from pipelit.services.visibility import can_see_execution
from pipelit.store import Store
from pipelit.store.queries import executions as queries


class LiveReader:
    """One reader's place in the hub."""

    def __init__(self, board: Board, subscription: Subscription, revoked: trio.Event) -> None:
        self._board = board
        self._subscription = subscription
        self._revoked = revoked

    @property
    def revoked(self) -> trio.Event:
        """Set when the reader's key is revoked or expires."""
        return self._revoked

    def subscribe(self, channel: str) -> None:
        """Deliver events of *channel* from now on."""
        self._board.subscribe(self._subscription, channel)

    def unsubscribe(self, channel: str) -> None:
        """Deliver nothing of *channel* any more."""
        self._board.unsubscribe(self._subscription, channel)


class LiveFeed:
    """Implements `pipelit.web.ws.feed.Feed`."""

    def __init__(self, board: Board, store: Store, authenticator: Authenticator) -> None:
        self._board = board
        self._store = store
        self._authenticator = authenticator

    def open(
        self, principal: Principal, deliver: Callable[[Copy], None]
    ) -> AbstractAsyncContextManager[LiveReader]:
        """Register a reader for as long as the block lasts."""
        return self._open(principal, deliver)

    @asynccontextmanager
    async def _open(
        self, principal: Principal, deliver: Callable[[Copy], None]
    ) -> AsyncIterator[LiveReader]:
        subscription = Subscription(principal, deliver)
        try:
            async with self._authenticator.watch(principal) as ended:
                yield LiveReader(self._board, subscription, ended)
        finally:
            self._board.leave(subscription)

    async def last_seq(self, principal: Principal, execution_id: str) -> int:
        """Return the highest stored number; 0 for none, unknown or invisible."""
        row = await self._store.read(lambda conn: queries.find(conn, execution_id))
        return row.last_seq if _sees(principal, row) and row is not None else 0

    async def replay(
        self, principal: Principal, execution_id: str, after: int, limit: int
    ) -> Sequence[Copy]:
        """Return stored events after a number; none of an unknown or invisible execution."""

        def query(conn: Any) -> Sequence[queries.StoredEvent]:
            row = queries.find(conn, execution_id)
            if not _sees(principal, row):
                return ()
            return queries.events_after(conn, execution_id, after, limit=limit)

        return [stored_copy(execution_id, event) for event in await self._store.read(query)]


def _sees(principal: Principal, row: queries.Execution | None) -> bool:
    return row is not None and can_see_execution(principal, row.workflow_owner_id, row.user_id)

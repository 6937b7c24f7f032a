"""The live side's view of the server: readers of the hub's board, and replay from the store."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import trio
from sqlalchemy import Connection

from pipelit.actors.hub import Board, Copy, Subscription, stored_copy
from pipelit.services.authenticator import Authenticator, build_principal
from pipelit.services.principal import Principal
from pipelit.services.visibility import can_see_execution
from pipelit.store import Store
from pipelit.store.queries import executions as queries
from pipelit.store.queries import keys


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
        self,
        principal: Principal,
        deliver: Callable[[Copy], None],
        catch_up: Callable[[], None],
    ) -> AbstractAsyncContextManager[LiveReader]:
        """Register a reader for as long as the block lasts."""
        return self._open(principal, Subscription(principal, deliver, catch_up))

    @asynccontextmanager
    async def _open(
        self, principal: Principal, subscription: Subscription
    ) -> AsyncIterator[LiveReader]:
        def judge_as(current: Principal) -> None:
            subscription.reader = current

        try:
            async with (
                self._authenticator.watch(principal) as ended,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._authenticator.follow, principal, judge_as)
                yield LiveReader(self._board, subscription, ended)
                nursery.cancel_scope.cancel()
        finally:
            self._board.leave(subscription)

    async def last_seq(self, principal: Principal, execution_id: str) -> int:
        """Return the highest stored number; 0 for none, unknown or invisible."""
        find = partial(_find_visible, principal=principal, execution_id=execution_id)
        row = await self._store.read(find)
        return 0 if row is None else row.last_seq

    async def replay(
        self, principal: Principal, execution_id: str, after: int, limit: int
    ) -> Sequence[Copy]:
        """Return stored events after a number; none of an unknown or invisible execution."""

        def query(conn: Connection) -> Sequence[queries.StoredEvent]:
            if _find_visible(conn, principal, execution_id) is None:
                return ()
            return queries.events_after(conn, execution_id, after, limit=limit)

        return [stored_copy(execution_id, event) for event in await self._store.read(query)]


def _find_visible(
    conn: Connection, principal: Principal, execution_id: str
) -> queries.Execution | None:
    if not (execution_id.isascii() and execution_id.isprintable()):
        return None  # no id of ours, and text that a database may refuse
    row = queries.find(conn, execution_id)
    if row is None:
        return None
    # A socket may outlive the role it was opened with.
    key = keys.find_key_by_id(conn, principal.key_id)
    current = principal if key is None else build_principal(key)
    return row if can_see_execution(current, row.workflow_owner_id, row.user_id) else None

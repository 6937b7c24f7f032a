"""Lets model calls begin as far as the budget of their epic goes.

A call is reserved before it is made, and settled when it has ended. Near the end of a budget calls
wait for each other, in the order they came. Contract: engine.md §25.4.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, TypeAlias

import trio
from sqlalchemy import Connection

from pipelit.clock import Clock, Ids
from pipelit.engine.budget import (
    EXCEEDED,
    UNKNOWN_PRICE,
    Estimate,
    overdraft,
    price_problem,
)
from pipelit.engine.outcome import Usage
from pipelit.nodes.base import NodeError
from pipelit.store import Store
from pipelit.store.queries import budgets as queries
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.ownership import require_owner

POLL = 0.25
"""Seconds between looks of a call that waits for others: those of other servers say nothing."""

Refused: TypeAlias = tuple[str, str]
"""The code of an error and its text."""


class _Turn:
    """Whose turn it is to reserve of an epic."""

    def __init__(self) -> None:
        self.lock = trio.StrictFIFOLock()
        self.users = 0


class Budgets:
    """One per server."""

    def __init__(self, store: Store, owner: Owner, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._ids = ids
        self._turns: dict[str, _Turn] = {}  # {epic: somebody asks of it}

    def purse(self, execution_id: str, node_id: str) -> "Purse":
        """Return what an attempt of a node pays its model calls from."""
        return Purse(self, execution_id, node_id)

    async def find_epic(self, execution_id: str) -> str | None:
        """Return the epic that pays for an execution; few have one."""
        return await self._store.read(lambda conn: queries.find_epic(conn, execution_id))

    @asynccontextmanager
    async def turn(self, epic_id: str) -> AsyncIterator[None]:
        """Wait until everybody who came before has reserved of an epic, or was refused."""
        turn = self._turns.setdefault(epic_id, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                self._turns.pop(epic_id, None)

    async def settle(self, execution_id: str, settled: tuple[queries.Settled, ...]) -> None:
        """Store what ended calls have used."""

        def unit(conn: Connection) -> None:
            require_owner(conn, execution_id, self._owner)
            queries.settle(conn, settled)

        await self._store.write(unit, key=execution_id, patient=True)

    async def try_to_reserve(
        self, execution_id: str, node_id: str, estimate: Estimate
    ) -> queries.Reservation | Refused | Literal["full"] | None:
        """Reserve if there is room. None: no epic pays any more."""
        wanted = queries.Reservation(
            id=self._ids.uuid(),
            execution_id=execution_id,
            node_id=node_id,
            tokens=estimate.tokens,
            micros=estimate.micros or 0,
            created_at=self._clock.now(),
        )

        def unit(conn: Connection) -> queries.Reservation | Refused | Literal["full"] | None:
            require_owner(conn, execution_id, self._owner)
            epic_id = queries.find_epic(conn, execution_id)
            if epic_id is None:
                return None
            queries.lock(conn, epic_id)
            account = queries.load_account(conn, epic_id)
            if (problem := overdraft(account)) is not None:
                return EXCEEDED, problem
            if (problem := price_problem(account, estimate)) is not None:
                return UNKNOWN_PRICE, problem
            if account.is_full:
                return "full"
            queries.reserve(conn, epic_id, wanted)
            return wanted

        return await self._store.write(unit, key=execution_id, patient=True)


class Purse:
    """What one attempt of a node pays its model calls from. Owned by the attempt's task."""

    def __init__(self, budgets: Budgets, execution_id: str, node_id: str) -> None:
        self._budgets = budgets
        self._execution_id = execution_id
        self._node_id = node_id
        self._settled: dict[str, queries.Settled] = {}

    async def reserve(self, estimate: Estimate, on_alive: Callable[[], None]) -> str | None:
        """Wait until a call may begin; return what to settle it by, if anybody has to pay.

        Args:
            estimate: what the call may use.
            on_alive: called as long as the call waits for others.

        Raises:
            NodeError: `BudgetExceededError`, `UnknownPriceError`: the execution ends.
            Fenced: the execution has another owner, or has ended.

        Cancelling leaves at most a reservation that is released with the node.
        """
        epic_id = await self._budgets.find_epic(self._execution_id)
        if epic_id is None:
            return None
        with self.settling() as settled:
            # Before the turn: who has it may wait for the room that this gives back.
            if settled:
                await self._budgets.settle(self._execution_id, settled)
        async with self._budgets.turn(epic_id):
            while True:
                result = await self._budgets.try_to_reserve(
                    self._execution_id, self._node_id, estimate
                )
                match result:
                    case None:
                        return None
                    case queries.Reservation(id=reservation_id):
                        return reservation_id
                    case (code, problem):
                        raise NodeError(problem, code=code, retryable=False)
                    case "full":
                        on_alive()
                        await trio.sleep(POLL)

    def settle(self, reservation_id: str | None, used: Usage) -> None:
        """Note what a call has used: it is stored with what is saved next."""
        if reservation_id is not None:
            self._settled[reservation_id] = queries.Settled(
                reservation_id=reservation_id, tokens=used.total_tokens, micros=used.cost_micros
            )

    @contextmanager
    def settling(self) -> Iterator[tuple[queries.Settled, ...]]:
        """Give what is to be stored of ended calls; what could not be stored is given again."""
        taken, self._settled = self._settled, {}
        try:
            yield tuple(taken.values())
        except BaseException:  # also cancelled: to settle what was stored after all does no harm
            self._settled = taken | self._settled
            raise
